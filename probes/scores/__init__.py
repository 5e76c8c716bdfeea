"""Metrics, intervals and tests; results and predictions."""
