"""Planetoid's Python 2 pickles, read without trusting them: arrays, sparse matrices, dictionaries."""

import io
import pickle
from collections import defaultdict
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from models.errors import DataError


class SparseRows:
    """Describe what is left of a ``scipy.sparse.csr_matrix``: its state, checked, and none of its code.

    Attributes:
        indptr: Where each row starts in ``indices``, ``(rows + 1,)``.
        indices: Columns of the non-zero values, row by row.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.int64]

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.rows, self.columns = state["_shape"]
        self.indptr, self.indices = (np.asarray(state[name], np.int64) for name in ("indptr", "indices"))
        starts = self.indptr
        is_cut = starts.shape == (self.rows + 1,) and starts[0] == 0 and starts[-1] == len(self.indices)
        if not is_cut or (np.diff(starts) < 0).any():
            raise ValueError("rows that do not cut the columns")
        if self.indices.size and not 0 <= self.indices.min() <= self.indices.max() < self.columns:
            raise ValueError("columns outside the matrix")


Content: TypeAlias = NDArray[Any] | SparseRows | dict[int, list[int]]

# numpy moved its function between versions; an array's own way of pickling knows where it is now.
_ALLOWED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("scipy.sparse.csr", "csr_matrix"): SparseRows,
    ("collections", "defaultdict"): defaultdict,
    ("__builtin__", "list"): list,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"a use of {module}.{name}") from None


# What damaged pickles raise, as found by cutting and flipping bytes of Planetoid's.
_DAMAGE = (
    pickle.UnpicklingError, ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError,
    OverflowError, MemoryError, NotImplementedError, ImportError,
)  # fmt: skip


def read_pickle(content: bytes, name: str, kind: type) -> Any:
    """Return the array, ``SparseRows`` or dictionary in a pickle; nothing is ever called but their constructors.

    Raises:
        DataError: If it asks for anything else, is damaged, or holds another kind of object.
    """
    try:
        found = _Reader(io.BytesIO(content), encoding="latin1").load()
    except _DAMAGE as error:
        raise DataError(name, found=str(error) or "a damaged pickle", expected="arrays and lists only") from error
    if not isinstance(found, kind):
        raise DataError(name, found=f"a pickled {type(found).__name__}", expected=kind.__name__)
    return found
