"""A model's vectors with their cells, as NumPy, pandas, Arrow or AnnData; one array for all."""

from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedstore.errors import EmbedstoreError
from embedstore.python.rows import DataFrame
from embedstore.reading.vectors import ID, vectors_of
from embedstore.store import Store

ABOUT = "annotation_id, dataset, slide, case_id, domain, label, x_l0, y_l0, split"
"""What is told of each cell: columns of the view annotations."""


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Vectors of one model and the cells they are of, in one order, that of the store.

    X float32 (n, d), a row a cell; cells (n rows): a DataFrame with index annotation_id and what
    the view annotations tells of each. The frames made of it share X's memory.
    """

    model: str
    X: NDArray[np.float32]
    cells: DataFrame

    def __len__(self) -> int:
        return len(self.X)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Return X, so that NumPy and scikit-learn take this as an array."""
        if dtype is not None and np.dtype(dtype) != self.X.dtype:
            return self.X.astype(dtype)
        return self.X.copy() if copy else self.X

    def to_numpy(self) -> NDArray[np.float32]:
        """Return X, float32 (n, d)."""
        return self.X

    def to_pandas(self) -> DataFrame:
        """Return a frame of n rows, index annotation_id, and d columns MODEL_0, MODEL_1, ... ."""
        names = [f"{self.model}_{i}" for i in range(self.X.shape[1])]
        return DataFrame(self.X, index=self.cells.index, columns=names, copy=False)

    def to_arrow(self) -> pa.Table:
        """Return the cells' columns and `vector`, a list of d float32."""
        cells = pa.Table.from_pandas(self.cells.reset_index(), preserve_index=False)
        flat = pa.array(self.X.ravel())
        vectors = pa.FixedSizeListArray.from_arrays(flat, self.X.shape[1])
        return cells.append_column("vector", vectors)

    def to_anndata(self) -> Any:
        """Return an AnnData: X, obs the cells, obsm['spatial'] their centres in level-0 pixels.

        EmbedstoreError without the package anndata.
        """
        try:
            from anndata import AnnData
        except ImportError as e:
            raise EmbedstoreError(
                "AnnData needs the package anndata: pip install 'mitosis-embedstore[anndata]'"
            ) from e
        var = DataFrame(index=[f"{self.model}_{i}" for i in range(self.X.shape[1])])
        places = self.cells[["x_l0", "y_l0"]].to_numpy(dtype=np.float64)
        return AnnData(
            self.X,
            obs=self.cells.copy(),
            var=var,
            obsm={"spatial": places},
            uns={"model": self.model},
        )

    def _repr_html_(self) -> str:
        """Return what it is and its first cells as HTML."""
        return f"<p>{escape(repr(self))}</p>{self.cells.head()._repr_html_()}"

    def __repr__(self) -> str:
        """Return what it is in a line."""
        return f"{len(self):,} embeddings of {self.model}, {self.X.shape[1]} numbers each, float32"


def load(store: Store, model: str, dataset: str | None, where: str | None) -> Embeddings:
    """Return a model's vectors of a dataset, or of all, of cells that meet a condition.

    where: SQL on the view annotations. EmbedstoreError where there are none.
    """
    vectors, cells = vectors_of(store, model, dataset, where, ABOUT)
    return Embeddings(model, vectors, cells.to_pandas().set_index(ID))
