"""The demonstration dataset: generated slides of several stain domains."""
