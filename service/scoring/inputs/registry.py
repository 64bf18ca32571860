"""Open an input by its format: one module each."""

from collections.abc import Callable, Mapping

import msgspec

from service.scoring.inputs.archives import TarSource, ZipSource
from service.scoring.inputs.arrow_ipc import ArrowSource
from service.scoring.inputs.conllu_source import ConlluSource
from service.scoring.inputs.csv_source import CsvSource
from service.scoring.inputs.folder import FolderSource
from service.scoring.inputs.idx_source import IdxSource
from service.scoring.inputs.interfaces import Source
from service.scoring.inputs.jsonl_source import JsonlSource
from service.scoring.inputs.parquet_source import ParquetSource
from service.scoring.inputs.series_source import SeriesSource
from service.scoring.inputs.tu_graphs import TuSource
from service.scoring.spec import JobSpec

SOURCES: Mapping[str, Callable[[JobSpec], Source]] = {
    "jsonl": JsonlSource,
    "csv": CsvSource,
    "parquet": ParquetSource,
    "arrow": ArrowSource,
    "conllu": ConlluSource,
    "folder": FolderSource,
    "tar": TarSource,
    "zip": ZipSource,
    "tu": TuSource,
    "idx": IdxSource,
    "series": SeriesSource,
}


def complete(spec: JobSpec, most_rows: int | None = None) -> JobSpec:
    """The spec with what only the input can say: that it is a series, JSON lines' keys, what divides CSV's cells.

    Args:
        spec: As asked.
        most_rows: Rows that the input may have; ``None``: any number.

    Raises:
        DataError: If the input cannot be read.
        JobTooLarge: If it has more rows, where they are read for that.
    """
    from service.scoring.inputs.series_source import is_series

    if is_series(spec):
        return msgspec.structs.replace(spec, input_format="series")
    if spec.input_format == "csv":
        from service.scoring.inputs.csv_source import find_delimiter

        options = msgspec.structs.replace(spec.options, delimiter=find_delimiter(spec))
        return msgspec.structs.replace(spec, options=options)
    if spec.input_format != "jsonl":
        return spec
    from service.scoring.inputs.jsonl_source import find_columns

    return msgspec.structs.replace(spec, keys=find_columns(spec, most_rows))


def open_source(spec: JobSpec) -> Source:
    """Return the input of a job.

    Raises:
        DataError: If it is not there, or cannot be understood as a whole.
    """
    from service.scoring.inputs.registry import SOURCES

    return SOURCES[spec.input_format](spec)
