"""Specify a job's output: everything that decides its bytes, as data."""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import msgspec

from models.artifact.manifest import Manifest
from models.errors import DataError
from models.registry import find_card
from service.scoring.addresses import is_local, local_path

INPUTS = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".tsv": "csv",
    ".parquet": "parquet", ".arrow": "arrow", ".feather": "arrow", ".arrows": "arrow",
    ".conllu": "conllu", ".tar": "tar", ".tgz": "tar", ".zip": "zip", ".txt": "series",
    "idx3-ubyte": "idx",
}  # fmt: skip
OUTPUTS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet", ".arrow": "arrow"}
FOLDERS = ("folder", "tu")
COMPRESSIONS = {".gz": "gzip", ".gzip": "gzip", ".zst": "zstd", ".zstd": "zstd"}
# Formats that may stand compressed: they are read from the beginning to the end.
STREAMED = frozenset({"jsonl", "csv", "conllu", "tar", "series", "idx"})

# About a second's work on one core; the smaller, the evener the shares of several.
ROWS, WORD_ROWS, BULK_ROWS = 2**10, 2**11, 2**14


class InputOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Describe what one run may choose.

    Attributes:
        columns: The input's column (or key) that each field of an instance is read from, where it is not the natural
            one.
        keep: Keys of a JSON line that are not the model's, even if they look like a field of its misspelt.
        id: One more of them, which the output shows as a column of its own.
        delimiter: What stands between the cells of a CSV file; empty: as the file says, else a comma.
        decimal: What stands before the fraction in a CSV file's numbers: a point or a comma.
        encoding: Of a CSV file; empty: UTF-8.
        has_header: Whether a CSV file's first row names the columns; ``None``: it should, and is looked at.
        series: What is said of a table that is one series, by the card's names (``Card.series``).
        every_day: Whether each window of a series is a row, and not the last alone.
        part_rows: Most rows in a part; none: as the model's card has it.
        part_bytes: A part ends with the row that makes it this large.
    """

    columns: Mapping[str, str] = {}
    keep: tuple[str, ...] = ()
    id: str | None = None
    delimiter: str = ""
    decimal: str = "."
    encoding: str = ""
    has_header: bool | None = None
    series: Mapping[str, str] = {}
    every_day: bool = False
    part_rows: int | None = None
    part_bytes: int = 8 * 2**20

    @property
    def most_rows(self) -> int:
        """``part_rows``, decided."""
        return self.part_rows or ROWS


class JobSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One job's bytes.

    Attributes:
        model: The model's tag.
        manifest_digest: Of its certificate.
        family: The model's family.
        task: And its task.
        source: The input's address.
        input_format: One of ``INPUTS``' values, ``folder`` or ``tu``.
        compression: Around the input: ``gzip``, ``zstd`` or none.
        output_format: One of ``OUTPUTS``' values.
        options: The run's choices.
        keys: The keys of JSON lines with their kinds (``sources/json_keys.py``): what the input's own bytes say.
    """

    model: str
    manifest_digest: str
    family: str
    task: str
    source: str
    input_format: str
    compression: str
    output_format: str
    options: InputOptions
    keys: tuple[tuple[str, str], ...] = ()


def make_spec(
    manifest: Manifest,
    source: str,
    target: str,
    options: InputOptions | None = None,
    *,
    input_format: str = "",
    output_format: str = "",
) -> JobSpec:
    """Return the spec of a run; formats that are not given are read off the names.

    Raises:
        DataError: If a name tells no format.
    """
    found, compression = _input_format(source, input_format)
    options = options or InputOptions()
    if options.part_rows is None:
        card = find_card(manifest.family, manifest.task)
        rows = BULK_ROWS if card.bulk else WORD_ROWS if card.word_bulk else ROWS
        options = msgspec.structs.replace(options, part_rows=rows)
    return JobSpec(
        model=manifest.tag,
        manifest_digest=manifest.digest,
        family=manifest.family,
        task=manifest.task,
        source=source,
        input_format=found,
        compression=compression,
        output_format=output_format or _format(target, OUTPUTS, "--output-format"),
        options=options,
    )


def _input_format(source: str, wanted: str) -> tuple[str, str]:
    if not wanted and (folder := _folder_format(source)):
        return folder, ""
    suffixes = PurePosixPath(source).suffixes
    compression = COMPRESSIONS.get(suffixes[-1].lower(), "") if suffixes else ""
    name = source[: -len(suffixes[-1])] if compression else source
    found = wanted or _format(name, INPUTS, "--input-format")
    if PurePosixPath(name).suffix.lower() == ".tgz":
        compression = "gzip"
    if compression and found not in STREAMED:
        raise DataError(
            source, found=f"{compression} around {found}", expected="it as it is: it has its own compression"
        )
    return found, compression


def _folder_format(source: str) -> str:
    """``tu`` or ``folder`` for a folder, which a remote address shows by its last stroke; else nothing."""
    if not is_local(source):
        return "folder" if source.endswith("/") else ""
    path = local_path(source)
    if not path.is_dir():
        return ""
    return "tu" if any(path.glob("*_graph_indicator.txt")) else "folder"


def _format(name: str, known: Mapping[str, str], option: str) -> str:
    found = next((known[ending] for ending in known if name.lower().endswith(ending)), None)
    if found is None:
        suffix = PurePosixPath(name).suffix.lower()
        expected = f"a name that ends with one of {' '.join(known)}, or {option}"
        raise DataError(name, found=f"the ending {suffix!r}", expected=expected)
    return found


def to_bytes(value: Any) -> bytes:
    """Canonical JSON of a spec or a cut, for digests."""
    return msgspec.json.encode(value, order="deterministic")
