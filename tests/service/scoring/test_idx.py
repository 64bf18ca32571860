"""IDX files, MNIST's format, scored as pictures."""

import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models.errors import DataError, InputChanged
from models.image.schema import Instance
from service.scoring.inputs.idx_source import IdxSource
from service.scoring.spec import make_spec

Run = Callable[..., Any]


def pictures(count: int, height: int = 28, width: int = 28) -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (count, height, width)).astype(np.uint8)


def idx(content: NDArray[np.uint8]) -> bytes:
    return struct.pack(">4B3I", 0, 0, 8, 3, *content.shape) + content.tobytes()


@pytest.mark.parametrize("name", ["t10k-images-idx3-ubyte", "t10k-images.idx3-ubyte", "images-idx3-ubyte.gz"])
def test_scored(
    name: str, run: Run, alone: Callable[[str, list[Any]], list[bytes]], prediction: Callable[[bytes], bytes]
) -> None:
    """Each picture is a row with its number, and answered as the service answers its grey values."""
    given = pictures(9)
    content = gzip.compress(idx(given)) if name.endswith("gz") else idx(given)
    job = run("image", name, content, part_rows=4)
    lines = job.output.splitlines()
    assert [json.loads(line)["index"] for line in lines] == [*range(9)]
    asked = [Instance(pixels=picture.tolist()) for picture in given]
    assert [*map(prediction, lines)] == alone("image", asked)
    assert len(job.parts) == 3
    assert run("image", name, content, part_bytes=784, alone=True).output == job.output


def test_another_size(run: Run) -> None:
    """Pictures of another size than the model's are error rows that say both."""
    job = run("image", "a.idx3-ubyte", idx(pictures(2, 8, 9)))
    assert job.codes == ["invalid_request"] * 2
    assert job.lines[0]["error_reason"] == "pixels: expected an array of shape (28, 28), found (8, 9)"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "found header , expected 00000803"),
        (b"\0\0\x08\x01" + bytes(30), "found header 00000801, expected 00000803"),
        (idx(pictures(3))[:-1], "found 2351 bytes of pictures, expected 3 pictures of 784 bytes"),
        (idx(pictures(3)) + b"x", "found 2353 bytes of pictures, expected 3 pictures of 784 bytes"),
        (struct.pack(">4B3I", 0, 0, 8, 3, 1, 0, 28), "found pictures of 0 x 28, expected 1 to"),
        (struct.pack(">4B3I", 0, 0, 8, 3, 1, 2**31, 2**31), "found pictures of 2147483648 x 2147483648, expected 1 to"),
    ],
)
def test_refused(content: bytes, message: str, run: Run) -> None:
    """What is no whole IDX file of pictures is refused, with what it says of itself and what it is."""
    with pytest.raises(DataError) as caught:
        run("image", "a.idx3-ubyte", content)
    assert message in str(caught.value)


@pytest.mark.parametrize("model", ["viewcount", "tagging"])
def test_other_models(model: str, run: Run) -> None:
    """A model of something else reads no pictures."""
    with pytest.raises(DataError, match="found pictures, expected what"):
        run(model, "a.idx3-ubyte", idx(pictures(2)))


def test_no_pictures(run: Run) -> None:
    """An IDX file without a picture is no row."""
    assert run("image", "a.idx3-ubyte", idx(pictures(0))).output == b""


def test_changed(shipped_session: Any, tmp_path: Path) -> None:
    """Pictures that are others than were cut are not scored."""
    path = tmp_path / "a.idx3-ubyte"
    path.write_bytes(idx(pictures(3)))
    source = IdxSource(make_spec(shipped_session("image").manifest, str(path), "out.jsonl"))
    (cut,) = source.cuts()
    path.write_bytes(idx(pictures(3) // 2))
    with pytest.raises(InputChanged):
        IdxSource(make_spec(shipped_session("image").manifest, str(path), "out.jsonl")).read(cut)
