"""The verbs `export` and `import`: embeddings out to files and in from them."""

from embedstore.exchange.incoming import export, import_embeddings

__all__ = ["export", "import_embeddings"]
