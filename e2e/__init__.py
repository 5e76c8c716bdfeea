"""Models trained end to end on the split manifests of the probes, and the verb `paper`."""
