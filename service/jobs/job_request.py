"""Define job requests: typed, bounded, and turned into the arguments of ``python -m service.scoring``."""

from enum import StrEnum
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import asdict

from models.errors import Fault, InvalidRequest
from models.payload.json_payload import from_decoding
from models.reading import data_options
from models.registry import CARDS

T = TypeVar("T")

# Arguments of a process cannot hold a NUL.
Name = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f]*$")]
Delimiter = Annotated[str, Meta(min_length=1, max_length=3, pattern=r"^([^\x00\r\n]|tab)$")]
Tag = Annotated[
    str,
    Meta(
        pattern=r"^[a-z][a-z0-9-]{0,39}(:[a-z0-9][a-z0-9._-]{0,62})?$",
        description="`name` (the version that is live now) or `name:version` of the model store.",
    ),
]


class OutputFormat(StrEnum):
    """Describe how a result is written."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"
    ARROW = "arrow"


class UploadFormat(StrEnum):
    """Describe what an uploaded input may be."""

    JSONL = "jsonl"
    CSV = "csv"
    TSV = "tsv"
    TXT = "txt"
    PARQUET = "parquet"
    ARROW = "arrow"
    CONLLU = "conllu"
    TAR = "tar"
    ZIP = "zip"
    JSONL_GZ = "jsonl.gz"
    JSONL_ZST = "jsonl.zst"
    CSV_GZ = "csv.gz"
    CSV_ZST = "csv.zst"
    CONLLU_GZ = "conllu.gz"
    CONLLU_ZST = "conllu.zst"
    TAR_GZ = "tar.gz"
    TAR_ZST = "tar.zst"


# What may be said of a table that is one series.
SAID = {saying.name: saying for card in CARDS if card.series for saying in data_options(card.series.options)}
HORIZON = SAID["horizon"].bounds or (1, 1)
# What the command line takes without a word that takes it back.
FLAGS = {"every_day": False}


def _of_series(name: str) -> str:
    return f"Of a series: {SAID[name].text}"


class _CommonFields(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Describe how to read and to score, as far as a query can hold it; each means what the command line's does."""

    id_column: Annotated[Name | None, Meta(description="The column that the output shows beside each prediction.")] = (
        None
    )
    delimiter: Annotated[Delimiter | None, Meta(description="Between the cells of a CSV file, or `tab`.")] = None
    decimal: Annotated[Literal[".", ","] | None, Meta(description="Before the fraction in a CSV file's numbers.")] = (
        None
    )
    encoding: Annotated[Name | None, Meta(description="Of a CSV file, such as `latin-1`; UTF-8 by default.")] = None
    header: Annotated[bool | None, Meta(description="Whether a CSV file's first row names its columns.")] = None
    date_column: Annotated[Name | None, Meta(description=_of_series("date_column"))] = None
    views_column: Annotated[Name | None, Meta(description=_of_series("views_column"))] = None
    date_format: Annotated[Name | None, Meta(description=_of_series("date_format"))] = None
    thousands: Annotated[Literal[",", ".", "'", "space"] | None, Meta(description=_of_series("thousands"))] = None
    gaps: Annotated[Literal["refuse", "zero", "interpolate"] | None, Meta(description=_of_series("gaps"))] = None
    table: Annotated[Name | None, Meta(description=_of_series("table"))] = None
    horizon: Annotated[
        Annotated[int, Meta(ge=HORIZON[0], le=HORIZON[1])] | None, Meta(description=_of_series("horizon"))
    ] = None
    every_day: Annotated[bool, Meta(description="Of a series: a row for each day with a whole window before it.")] = (
        False
    )
    max_errors: Annotated[
        Annotated[int, Meta(ge=0)] | None, Meta(description="The job fails when more rows than this do.")
    ] = None
    max_error_rate: Annotated[
        Annotated[float, Meta(ge=0, le=1)] | None,
        Meta(description="The job fails when a larger part of all rows than this does."),
    ] = None


class RequestOptions(_CommonFields, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Describe how to read and to score a file that is there already."""

    columns: Annotated[
        dict[Name, Name], Meta(max_length=64, description="Field of an instance to the input's column that holds it.")
    ] = {}
    keep: Annotated[
        tuple[Name, ...], Meta(max_length=64, description="Keys of a JSON line that are no field misspelt.")
    ] = ()
    part_rows: Annotated[Annotated[int, Meta(ge=1, le=2**16)] | None, Meta(description="Most rows of a part.")] = None
    part_bytes: Annotated[Annotated[int, Meta(ge=1024, le=2**24)] | None, Meta(description="Most bytes of a part.")] = (
        None
    )

    def arguments(self) -> list[str]:
        """For the command line; a value never stands alone, where it could look like an option."""
        given = [f"--column={field}={column}" for field, column in self.columns.items()]
        given += [f"--keep={key}" for key in self.keep]
        for name, value in asdict(self).items():
            option = name.replace("_", "-")
            if name in ("columns", "keep") or value is None or value == FLAGS.get(name):
                continue
            if isinstance(value, bool):
                given.append(f"--{option}" if value else f"--no-{option}")
            else:
                given.append(f"--{option}={value}")
        return given


class JobRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """A job over an input that is there: the body of ``POST /v1/jobs``."""

    model: Tag
    input: Annotated[
        str, Meta(min_length=1, max_length=1024, description="A file or folder: its path below the storage root.")
    ]
    output_format: OutputFormat = OutputFormat.JSONL
    options: RequestOptions = RequestOptions()


class UploadRequest(_CommonFields, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A job over the body itself: the query of ``POST /v1/jobs?model=…&format=…``."""

    model: Tag
    format: Annotated[UploadFormat, Meta(description="Of the body.")]
    output_format: OutputFormat = OutputFormat.JSONL

    @property
    def options(self) -> RequestOptions:
        """Those that a query can hold."""
        return RequestOptions(**{name: getattr(self, name) for name in _CommonFields.__struct_fields__})


def read_order(body: bytes) -> JobRequest:
    """Return the order in a JSON body.

    Raises:
        MalformedRequest: If it is not JSON.
        InvalidRequest: If a value is not allowed.
    """
    try:
        return msgspec.json.decode(body, type=JobRequest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise from_decoding(error) from error


def read_query(pairs: list[tuple[str, str]], kind: type[T]) -> T:
    """Return the struct that a query's names and values make.

    Raises:
        InvalidRequest: If a name is unknown or given twice, or a value is not allowed.
    """
    found: dict[str, Any] = dict(pairs)
    if len(found) < len(pairs):
        raise InvalidRequest(faults=[Fault(("query",), "a name is given more than once")])
    try:
        return msgspec.convert(found, kind, strict=False)
    except msgspec.ValidationError as error:
        fault = from_decoding(error).faults[0]
        raise InvalidRequest(faults=[fault.inside("query")]) from error
