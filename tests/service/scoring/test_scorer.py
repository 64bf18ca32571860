"""Rows of one part are encoded together, and yet each of them is as if it were alone."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from models.runtime.predictor import Predictor
from service.scoring.parts import scorer
from service.scoring.parts.columns import _column

Run = Callable[..., Any]
# A word too many, a control character, no words at all; at the borders of what is encoded together, too.
BAD = {
    0: '{"tokens":["a","\\u0007"]}',
    63: '{"tokens":["", "a"]}',
    64: "{}",
    70: '{"tokens":7}',
    129: '{"text":"\\u0000"}',
}
ROWS = 130


def lines() -> bytes:
    """Sentences, some of them none."""
    good = ('{"tokens":["I","saw","a","saw"%s]}' % (',"again"' * (row % 9)) for row in range(ROWS))
    return "\n".join(BAD.get(row, line) for row, line in enumerate(good)).encode()


def test_as_if_alone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors, their places and every good row are those of rows encoded one by one."""
    together = run("tagging", "in.jsonl", lines())
    assert [row for row, code in enumerate(together.codes) if code] == sorted(BAD)
    monkeypatch.setattr(scorer, "ENCODED_AT_ONCE", 1)
    assert run("tagging", "in.jsonl", lines()).output == together.output


def test_bad_rows_cost_only_their_company(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoded one by one are only rows that stand together with a bad one."""
    sizes: list[int] = []
    encode = Predictor.encode
    monkeypatch.setattr(
        Predictor, "encode", lambda self, some, **how: (sizes.append(len(some)), encode(self, some, **how))[1]
    )
    run("tagging", "in.jsonl", lines().splitlines(keepends=True)[1] * 3 * scorer.ENCODED_AT_ONCE)
    assert [size for size in sizes if size > 1] == [scorer.ENCODED_AT_ONCE] * 3


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([["a", "b"], None, [], ["c", None]], pa.list_(pa.string())),
        ([np.array([1, 2], "f"), None, np.array([], "f")], pa.list_(pa.float32())),
        ([np.ones((2, 3), "f"), None, np.zeros((0, 3), "f")], pa.list_(pa.list_(pa.float32()))),
        ([None, None], pa.list_(pa.string())),
        ([], pa.list_(pa.int64())),
        ([1, None], pa.int64()),
    ],
)
def test_columns(values: list[Any], kind: pa.DataType) -> None:
    """Lists put end to end are the column that Arrow makes of them one by one."""
    plain = [value.tolist() if isinstance(value, np.ndarray) else value for value in values]
    found = _column(values, kind)
    found.validate(full=True)
    assert found.equals(pa.array(plain, kind))
