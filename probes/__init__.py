"""Linear probes on slices of the embeddings: splits, fits, scores, results."""
