"""Embeddings of annotated cells, one per annotation and model, in a store that answers SQL."""
