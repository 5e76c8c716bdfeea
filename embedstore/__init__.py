"""Embeddings of annotated cells, one per annotation and model, in a store that answers SQL."""

from embedstore.files.user import settle_user

settle_user()
