"""Pictures in an IDX file, as MNIST's: grey values of equally large pictures, one after the other."""

import hashlib
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa

from models.errors import DataError, HttpError
from models.image.idx import read_head
from models.payload.npy import MEDIA_TYPE
from models.registry import find_card
from service.scoring.inputs.interfaces import PartSpec
from service.scoring.inputs.row_splitting import MAX_ROW_BYTES
from service.scoring.inputs.storage import Pass, Spans, damage_told, decompressed, open_stored
from service.scoring.spec import JobSpec

AXES = 3
HEAD = 4 + 4 * AXES
INDEX = "index"


class IdxSource:
    """An IDX file of pictures."""

    passed_over, notes = 0, ()
    schema = pa.schema([(INDEX, pa.int64())])

    def __init__(self, spec: JobSpec) -> None:
        self._spec, self._pass = spec, Pass(spec.source, spec.compression)
        self._spans = Spans(spec.source, spec.compression)
        self._read = find_card(spec.family, spec.task).from_media.get(MEDIA_TYPE)
        with open_stored(spec.source) as stored, damage_told(spec.source, spec.compression):
            inside = decompressed(stored, spec.compression) if spec.compression else stored
            self._count, *shape = read_head(inside.read(HEAD), spec.source, AXES)
        self._shape = tuple(shape)
        self._bytes = shape[0] * shape[1]
        if not 0 < self._bytes <= MAX_ROW_BYTES:
            expected = f"1 to {MAX_ROW_BYTES} bytes each"
            raise DataError(spec.source, found=f"pictures of {shape[0]} x {shape[1]}", expected=expected)
        try:
            self.instances(bytes(self._bytes))
        except HttpError as error:
            raise DataError(spec.source, found="pictures", expected=f"what {spec.model} reads: {error}") from error

    @property
    def digest(self) -> str:
        """sha256 of the stored bytes."""
        return self._pass.digest

    def instances(self, content: bytes) -> list[Any]:
        """Return what pictures ask, as the service reads them from an array.

        Raises:
            HttpError: If the model reads no arrays of pictures.
        """
        if self._read is None:
            raise HttpError("no arrays of pictures")
        array = BytesIO()
        np.save(array, np.frombuffer(content, np.uint8).reshape(-1, *self._shape))
        return self._read(array.getvalue())

    def cuts(self) -> Iterator[PartSpec]:
        """Parts of whole pictures.

        Raises:
            DataError: If there are not as many as the file says.
        """
        options = self._spec.options
        size = self._bytes * max(1, min(options.most_rows, options.part_bytes // self._bytes))
        held, index, found = bytearray(), 0, -HEAD
        for block in self._pass.blocks():
            held += block[max(0, -found) :]
            found += len(block)
            while len(held) >= size:
                yield self._cut(index, size * index, bytes(held[:size]))
                index, held = index + 1, held[size:]
        if found != self._count * self._bytes:
            expected = f"{self._count} pictures of {self._bytes} bytes"
            raise DataError(self._spec.source, found=f"{max(0, found)} bytes of pictures", expected=expected)
        if held or not index:
            yield self._cut(index, size * index, bytes(held))

    def _cut(self, index: int, offset: int, content: bytes) -> PartSpec:
        return PartSpec(
            index=index,
            first_row=offset // self._bytes,
            rows=len(content) // self._bytes,
            digest=hashlib.sha256(content).hexdigest(),
            place={"offset": HEAD + offset, "length": len(content)},
        )

    def read(self, cut: PartSpec) -> "IdxRows":
        """Return the pictures of a part."""
        content = self._spans.read(cut.place["offset"], cut.place["length"], cut.digest)
        return IdxRows(self.instances(content) if content else [], cut.first_row)


class IdxRows:
    """Some pictures."""

    def __init__(self, instances: list[Any], first: int) -> None:
        self._instances, self._first, self.count = instances, first, len(instances)

    def instance(self, row: int) -> Any:
        """Return the picture."""
        return self._instances[row]

    def numbers(self, field: str) -> None:
        """None: these are read one by one."""

    def words(self, field: str) -> None:
        """None: these have no lists of words."""

    def table(self) -> pa.Table:
        """Return the pictures' numbers in the file, from 0."""
        return pa.table([pa.array(range(self._first, self._first + self.count), pa.int64())], schema=IdxSource.schema)

    def lines(self) -> list[bytes] | None:
        """None: these are no lines."""
        return None
