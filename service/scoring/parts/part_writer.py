"""A part that has been scored, and its bytes: the same for the same rows, whoever scored them."""

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import repeat
from typing import Any, BinaryIO, TypeAlias

import msgspec
import orjson
import pyarrow as pa

from models.payload.json_payload import to_json
from service.scoring.inputs.interfaces import PartSpec, RowError, Rows
from service.scoring.outputs.parquet import are_groups, open_writer
from service.scoring.outputs.rendering import csv_texts, json_values
from service.scoring.parts.answers import Answers
from service.scoring.parts.columns import OutputColumns
from service.scoring.spec import JobSpec

# Quick to write and to read again: parts live until the output is put together.
# Of reasons that a person is shown.
MOST_TOLD, MOST_SHOWN = 3, 200
PART_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedPart:
    """The answers of one part.

    Attributes:
        cut: The part.
        answers: Each row's prediction, or what is wrong with it.
    """

    spec: JobSpec
    cut: PartSpec
    source: Rows
    layout: OutputColumns
    answers: Answers

    @property
    def rows(self) -> int:
        """Return how many rows."""
        return self.cut.rows

    @property
    def errors(self) -> int:
        """Return how many of them are error rows."""
        return self.answers.errors

    @property
    def first_errors(self) -> tuple[str, ...]:
        """Rows, counted from 1, and reasons of the first of them."""
        found = self.answers.first_errors(MOST_TOLD)
        return tuple(
            f"row {self.cut.first_row + row + 1}: {error.code}: {error.reason[:MOST_SHOWN]}" for row, error in found
        )

    def write(self, file: BinaryIO) -> None:
        """The part's bytes."""
        WRITERS[self.spec.output_format](self, file)

    def table(self) -> pa.Table:
        """Input, predictions and errors, side by side."""
        columns = [*self.source.table().columns, *self.layout.results(self.answers)]
        return pa.table(columns, schema=self.layout.schema)


def _write_table(part: EncodedPart, file: BinaryIO) -> None:
    table = part.table()
    with pa.ipc.new_stream(file, table.schema, options=PART_OPTIONS) as writer:
        writer.write_table(table)


def _write_parquet(part: EncodedPart, file: BinaryIO) -> None:
    """A row group of the output as it will be, if it is large enough for one."""
    if not are_groups(part.spec):
        _write_table(part, file)
        return
    table = part.table()
    with open_writer(file, table.schema) as writer:
        if table.num_rows:
            writer.write_table(table, row_group_size=table.num_rows)


def _write_jsonl(part: EncodedPart, file: BinaryIO) -> None:
    lines = part.source.lines()
    if lines is None:
        table = part.source.table()
        names, columns = table.column_names, [json_values(column) for column in table.columns]
        lines = [to_json(dict(zip(names, row, strict=True))) for row in _side_by_side(columns, part.rows)]
    layout, out = part.layout, []
    code, reason, json_path = (orjson.dumps(name) for name in layout.errors)
    whole = orjson.dumps(layout.whole)
    for line, answer in zip(lines, part.answers, strict=True):
        begin = line[:-1].rstrip() if line.endswith(b"}") and _is_object(line, answer) else b"{"
        comma = b"" if begin == b"{" else b","
        if isinstance(answer, RowError):
            told = (whole, code, orjson.dumps(answer.code), reason, orjson.dumps(answer.reason))
            where = b",%b:%b" % (json_path, orjson.dumps(answer.place)) if answer.place else b""
            out.append(b"%b%b%b:null,%b:%b,%b:%b%b}\n" % (begin, comma, *told, where))
        else:
            out.append(b"%b%b%b:%b}\n" % (begin, comma, whole, to_json(answer)))
    file.write(b"".join(out))


def _is_object(line: bytes, answer: Any) -> bool:
    """Return whether more can be said inside the line: one with a prediction was read; one without may be anything."""
    if not isinstance(answer, RowError):
        return True
    try:
        return msgspec.json.decode(line) is not None
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return False


def _write_csv(part: EncodedPart, file: BinaryIO) -> None:
    text = io.StringIO()
    delimiter = part.spec.options.delimiter or ","
    writer = csv.writer(text, delimiter=delimiter)  # with another line end it would not quote a carriage return
    out: list[bytes] = []

    def line(cells: list[Any]) -> bytes:
        writer.writerow(cells)
        written = text.getvalue().removesuffix("\r\n") + "\n"
        text.seek(0)
        text.truncate()
        return written.encode(errors="replace")

    if part.cut.index == 0:
        out.append(line(part.layout.schema.names))
    lines = part.source.lines()
    if lines is None:
        rows = _side_by_side([csv_texts(column) for column in part.source.table().columns], part.rows)
        out += [line([*row, *_result(part.layout, answer)]) for row, answer in zip(rows, part.answers, strict=True)]
    else:
        for begin, answer in zip(lines, part.answers, strict=True):
            out.append(begin + delimiter.encode() + line(_result(part.layout, answer)))
    file.write(b"".join(out))


def _side_by_side(columns: list[list[Any]], rows: int) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of columns; of no columns, as many rows of nothing."""
    return zip(*columns, strict=True) if columns else repeat((), rows)


def _result(layout: OutputColumns, answer: Any) -> list[Any]:
    if isinstance(answer, RowError):
        return [*[""] * len(layout.fields), answer.code, answer.reason, answer.place]
    return [*(_cell(answer[name]) for name in layout.fields), "", "", ""]


def _cell(value: Any) -> str:
    """Text as it is, all else as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else to_json(value).decode()


Writer: TypeAlias = Callable[[EncodedPart, BinaryIO], None]
WRITERS: Mapping[str, Writer] = {
    "jsonl": _write_jsonl,
    "csv": _write_csv,
    "parquet": _write_parquet,
    "arrow": _write_table,
}
