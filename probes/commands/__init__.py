"""The commands of `probes`."""
