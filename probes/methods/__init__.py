"""The probes by name, in scikit-learn's grammar."""
