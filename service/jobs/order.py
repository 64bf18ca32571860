"""What a caller may ask of a job: typed, bounded, and turned into the arguments of ``python -m service.scoring``."""

from enum import StrEnum
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from models.bodies import from_decoding
from models.errors import Fault, InvalidRequest

T = TypeVar("T")

# Arguments of a process cannot hold a NUL.
Name = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f]*$")]
Delimiter = Annotated[str, Meta(min_length=1, max_length=1, pattern=r"^[^\x00\r\n]$")]
Tag = Annotated[
    str,
    Meta(
        pattern=r"^[a-z][a-z0-9-]{0,39}(:[a-z0-9][a-z0-9._-]{0,62})?$",
        description="`name` (the version that is live now) or `name:version` of the model store.",
    ),
]


class OutputFormat(StrEnum):
    """How a result is written."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"
    ARROW = "arrow"


class UploadFormat(StrEnum):
    """What an uploaded input may be."""

    JSONL = "jsonl"
    CSV = "csv"
    TSV = "tsv"
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


DECIMAL = "Before the fraction in a CSV file's numbers."
ENCODING = "Of a CSV file, such as `latin-1`; UTF-8 by default."
HEADER = "Whether a CSV file's first row names its columns."
# The options that a query can hold.
IN_QUERY = ("id_column", "delimiter", "decimal", "encoding", "header", "max_errors", "max_error_rate")


class Options(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How to read and to score; each means what the command line's does."""

    columns: Annotated[
        dict[Name, Name], Meta(max_length=64, description="Field of an instance to the input's column that holds it.")
    ] = {}
    keep: Annotated[
        tuple[Name, ...], Meta(max_length=64, description="Keys of a JSON line that are no field misspelt.")
    ] = ()
    id_column: Annotated[Name | None, Meta(description="The column that the output shows beside each prediction.")] = (
        None
    )
    delimiter: Annotated[Delimiter | None, Meta(description="Between the cells of a CSV file.")] = None
    decimal: Annotated[Literal[".", ","] | None, Meta(description=DECIMAL)] = None
    encoding: Annotated[Name | None, Meta(description=ENCODING)] = None
    header: Annotated[bool | None, Meta(description=HEADER)] = None
    part_rows: Annotated[Annotated[int, Meta(ge=1, le=2**16)] | None, Meta(description="Most rows of a part.")] = None
    part_bytes: Annotated[Annotated[int, Meta(ge=1024, le=2**24)] | None, Meta(description="Most bytes of a part.")] = (
        None
    )
    max_errors: Annotated[
        Annotated[int, Meta(ge=0)] | None, Meta(description="The job fails when more rows than this do.")
    ] = None
    max_error_rate: Annotated[
        Annotated[float, Meta(ge=0, le=1)] | None,
        Meta(description="The job fails when a larger part of all rows than this does."),
    ] = None

    def arguments(self) -> list[str]:
        """For the command line; a value never stands alone, where it could look like an option."""
        given = [f"--column={field}={column}" for field, column in self.columns.items()]
        given += [f"--keep={key}" for key in self.keep]
        single: dict[str, str | float | None] = {
            "id-column": self.id_column,
            "delimiter": self.delimiter,
            "part-rows": self.part_rows,
        }
        single |= {"part-bytes": self.part_bytes, "max-errors": self.max_errors}
        single |= {"decimal": self.decimal, "encoding": self.encoding}
        single |= {"max-error-rate": self.max_error_rate}
        given += [f"--{name}={value}" for name, value in single.items() if value is not None]
        return given if self.header is None else [*given, "--header" if self.header else "--no-header"]


class Order(Struct, frozen=True, forbid_unknown_fields=True):
    """A job over an input that is there: the body of ``POST /v1/jobs``."""

    model: Tag
    input: Annotated[
        str, Meta(min_length=1, max_length=1024, description="A file or folder: its path below the storage root.")
    ]
    output_format: OutputFormat = OutputFormat.JSONL
    options: Options = Options()


class UploadOrder(Struct, frozen=True, forbid_unknown_fields=True):
    """A job over the body itself: the query of ``POST /v1/jobs?model=…&format=…``."""

    model: Tag
    format: Annotated[UploadFormat, Meta(description="Of the body.")]
    output_format: OutputFormat = OutputFormat.JSONL
    id_column: Annotated[Name | None, Meta(description="The column that names each row.")] = None
    delimiter: Annotated[Delimiter | None, Meta(description="Between the cells of a CSV file.")] = None
    decimal: Annotated[Literal[".", ","] | None, Meta(description=DECIMAL)] = None
    encoding: Annotated[Name | None, Meta(description=ENCODING)] = None
    header: Annotated[bool | None, Meta(description=HEADER)] = None
    max_errors: Annotated[int, Meta(ge=0)] | None = None
    max_error_rate: Annotated[float, Meta(ge=0, le=1)] | None = None

    @property
    def options(self) -> Options:
        """Those that a query can hold."""
        return Options(**{name: getattr(self, name) for name in IN_QUERY})


def read_order(body: bytes) -> Order:
    """The order in a JSON body.

    Raises:
        MalformedRequest: If it is not JSON.
        InvalidRequest: If a value makes no sense.
    """
    try:
        return msgspec.json.decode(body, type=Order)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise from_decoding(error) from error


def read_query(pairs: list[tuple[str, str]], kind: type[T]) -> T:
    """The struct that a query's names and values make.

    Raises:
        InvalidRequest: If a name is unknown or given twice, or a value makes no sense.
    """
    found: dict[str, Any] = dict(pairs)
    if len(found) < len(pairs):
        raise InvalidRequest("a value makes no sense", [Fault(("query",), "a name is given more than once")])
    try:
        return msgspec.convert(found, kind, strict=False)
    except msgspec.ValidationError as error:
        fault = from_decoding(error).faults[0]
        raise InvalidRequest("a value makes no sense", [fault.inside("query")]) from error
