"""Rows of a table with types: Parquet and Arrow."""

from typing import TYPE_CHECKING, Any

from models.registry import find_card
from service.scoring.sources.columns import Field, document, resolve
from service.scoring.sources.jsonl import Document
from service.scoring.spec import Spec

if TYPE_CHECKING:
    import pyarrow as pa


class TableReader:
    """How the rows of tables of one schema become instances."""

    def __init__(self, spec: Spec, schema: "pa.Schema") -> None:
        import pyarrow as pa

        check_names(spec, schema)
        are_numbers = [pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in schema.types]
        card = find_card(spec.family, spec.task)
        self.fields: list[Field] = resolve(schema.names, are_numbers, card, spec.options, spec.source)
        self.document = Document(spec)

    def rows(self, table: "pa.Table") -> "TableRows":
        """The rows of a piece."""
        return TableRows(self, table)


def check_names(spec: Spec, schema: "pa.Schema") -> None:
    """Two columns of one name cannot be told apart."""
    from models.errors import DataError

    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise DataError(spec.source, found=f"two columns {twice[0]!r}", expected="each name once")


class TableRows:
    """A piece of a table."""

    def __init__(self, reader: TableReader, table: "pa.Table") -> None:
        self._reader, self._table, self.count = reader, table, table.num_rows
        self._columns: dict[int, list[Any]] = {}

    def _cells(self, place: int) -> list[Any]:
        if place not in self._columns:
            self._columns[place] = self._table.column(place).to_pylist()
        return self._columns[place]

    def instance(self, row: int) -> Any:
        """What the row's cells ask."""
        cells = {place: self._cells(place)[row] for field in self._reader.fields for place in field.columns}
        return self._reader.document.read(document(self._reader.fields, cells))

    def table(self) -> "pa.Table":
        """All of it."""
        return self._table

    def lines(self) -> list[bytes] | None:
        """None: these are no lines."""
        return None
