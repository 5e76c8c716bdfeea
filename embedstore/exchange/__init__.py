"""The verbs `export` and `import`: embeddings out to files and in from them."""

from embedstore.exchange.incoming import import_embeddings
from embedstore.exchange.outgoing import export

__all__ = ["export", "import_embeddings"]
