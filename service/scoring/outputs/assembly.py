"""The output, put together from the parts in order."""

import shutil
from typing import Any, BinaryIO

import pyarrow as pa

from service.scoring.outputs.parquet import are_groups, open_writer
from service.scoring.outputs.parquet_concat import RowGroups
from service.scoring.spec import JobSpec

# Readers skip and share out row groups; far smaller ones cost more than they hold.
GROUP_ROWS = 2**15
GROUP_BYTES = 32 * 2**20
COPY_BYTES = 2**20


class PartAssembly:
    """Writes a job's output while its parts come in.

    Args:
        spec: The job.
        file: Where the output goes, open for writing; stays open.
    """

    def __init__(self, spec: JobSpec, file: BinaryIO) -> None:
        self._file = file
        self._form = spec.output_format
        self._writer: Any = None
        self._group: list[pa.RecordBatch] = []
        self._rows = self._bytes = 0
        self._whole = RowGroups(file) if are_groups(spec) else None

    def add(self, part: BinaryIO) -> None:
        """The next part's bytes."""
        if self._whole is not None:
            self._whole.add(part)
            return
        if self._form in ("jsonl", "csv"):
            shutil.copyfileobj(part, self._file, COPY_BYTES)
            return
        with pa.ipc.open_stream(part) as reader:
            if self._writer is None:
                self._writer = self._open(reader.schema)
            for batch in reader:
                self._group.append(batch)
                self._rows, self._bytes = self._rows + batch.num_rows, self._bytes + batch.nbytes
        if self._rows >= GROUP_ROWS or self._bytes >= GROUP_BYTES:
            self._flush()

    def _open(self, schema: pa.Schema) -> Any:
        self._schema = schema
        if self._form == "arrow":
            return pa.ipc.new_file(self._file, schema)
        return open_writer(self._file, schema)

    def _flush(self) -> None:
        if self._rows:
            table = pa.Table.from_batches(self._group, self._schema)
            if self._form == "arrow":
                self._writer.write_table(table.combine_chunks())
            else:
                self._writer.write_table(table, row_group_size=self._rows)
        self._group, self._rows, self._bytes = [], 0, 0

    def close(self) -> None:
        """Write what is left, and the end."""
        if self._whole is not None:
            self._whole.close()
        if self._writer is not None:
            self._flush()
            self._writer.close()
