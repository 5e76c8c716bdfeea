"""Python's face of the verbs: one name with the commands, frames where those print rows."""
