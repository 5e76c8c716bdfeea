"""All linear fits of a model at once."""
