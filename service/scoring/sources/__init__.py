"""What can be scored: one module per format."""

from collections.abc import Callable, Mapping

from service.scoring.source import Source
from service.scoring.sources.archives import TarSource, ZipSource
from service.scoring.sources.arrow_ipc import ArrowSource
from service.scoring.sources.conllu import ConlluSource
from service.scoring.sources.csv_text import CsvSource
from service.scoring.sources.folder import FolderSource
from service.scoring.sources.idx import IdxSource
from service.scoring.sources.jsonl import JsonlSource
from service.scoring.sources.parquet_file import ParquetSource
from service.scoring.sources.series import SeriesSource
from service.scoring.sources.tu import TuSource
from service.scoring.spec import Spec

SOURCES: Mapping[str, Callable[[Spec], Source]] = {
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
