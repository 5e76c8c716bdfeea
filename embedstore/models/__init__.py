"""The models by name, their weights, and a network at work."""
