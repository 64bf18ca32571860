"""What can be scored: one module per format."""

from collections.abc import Callable, Mapping

from service.scoring.source import Source
from service.scoring.sources.csv_text import CsvSource
from service.scoring.sources.jsonl import JsonlSource
from service.scoring.spec import Spec

SOURCES: Mapping[str, Callable[[Spec], Source]] = {"jsonl": JsonlSource, "csv": CsvSource}
