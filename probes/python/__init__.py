"""Python's face of the verbs of `probes`: one name with the commands, frames for their rows."""
