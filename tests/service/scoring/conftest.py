"""Jobs in one process: an input, a model and a spec to the output's bytes and rows."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.models import ModelStore
from click.testing import CliRunner, Result

from export.store import install
from models.payload.json_payload import to_json
from models.runtime.device import Device
from models.runtime.predictor import Predictor
from models.runtime.session import Session
from service.scoring.commands import main
from service.scoring.inputs.registry import complete
from service.scoring.outputs.assembly import PartAssembly
from service.scoring.parts.scorer import ModelScorer
from service.scoring.spec import InputOptions, make_spec

Open = Callable[[str], Predictor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A finished job."""

    scorer: Any
    parts: list[bytes]
    output: bytes
    errors: int

    @property
    def lines(self) -> list[Any]:
        """Return the rows of a JSON-lines output."""
        return [orjson.loads(line) for line in self.output.splitlines()]

    @property
    def table(self) -> pa.Table:
        """Return the rows of a Parquet output."""
        return pq.read_table(BytesIO(self.output))

    @property
    def codes(self) -> list[str | None]:
        """Return each row's error."""
        if self.scorer.spec.output_format == "jsonl":
            return [line.get("error_code") for line in self.lines]
        codes: list[str | None] = self.table["error_code"].to_pylist()
        return codes


@pytest.fixture
def run(shipped: Open, shipped_session: Callable[[str], Session], tmp_path: Path) -> Callable[..., Job]:
    """Scores a file, or bytes under a name, with a shipped model."""

    def score(
        model: str,
        source: Path | str,
        content: bytes | None = None,
        *,
        to: str = "jsonl",
        alone: bool = False,
        predictor: Predictor | None = None,
        input_format: str = "",
        one_by_one: bool = False,
        **options: Any,
    ) -> Job:
        if content is not None:
            source = tmp_path / source
            source.write_bytes(content)
        manifest = shipped_session(model).manifest
        spec = complete(
            make_spec(manifest, str(source), f"out.{to}", InputOptions(**options), input_format=input_format)
        )
        predictor = predictor or shipped(model)
        if one_by_one:
            predictor = replace(predictor, card=replace(predictor.card, bulk=None, word_bulk=None))
        scorer = ModelScorer(spec, Device.CPU, predictor=predictor)
        out, parts, errors = BytesIO(), [], 0
        assembly = PartAssembly(spec, out)
        for cut in [*scorer.source.cuts()]:
            scored, part = scorer.score(cut, alone=alone), BytesIO()
            scored.write(part)
            parts.append(part.getvalue())
            errors += scored.errors
            part.seek(0)
            assembly.add(part)
        assembly.close()
        return Job(scorer=scorer, parts=parts, output=out.getvalue(), errors=errors)

    return score


@pytest.fixture
def draw(shipped: Open) -> Callable[[str, int], list[Any]]:
    """Random instances of a shipped model."""

    def some(name: str, count: int, seed: int = 0) -> list[Any]:
        predictor, rng = shipped(name), np.random.default_rng(seed)
        return [predictor.card.random_request(rng, predictor.assets) for _ in range(count)]

    return some


@pytest.fixture
def alone(shipped: Open) -> Callable[[str, list[Any]], list[bytes]]:
    """What the service answers to each instance sent by itself: the bytes of its one prediction."""

    def answers(name: str, instances: list[Any]) -> list[bytes]:
        return [to_json(shipped(name).predict([one])[0]) for one in instances]

    return answers


@pytest.fixture
def prediction() -> Callable[[bytes], bytes]:
    """The prediction's bytes as they stand in a line of output."""

    def cut(line: bytes) -> bytes:
        key = b'"prediction":'
        found = line[line.rindex(key) + len(key) :].rstrip(b"\n").removesuffix(b"}")
        json.loads(found)
        return found

    return cut


@pytest.fixture
def stocked(
    tmp_path: Path, shipped_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Callable[..., Result]]]:
    """Puts shipped models into a store of the test's own; what it returns calls the command line there."""
    (tmp_path / "store" / "models").mkdir(parents=True)
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "store"))

    def call(*words: Any) -> Result:
        return CliRunner().invoke(main, [str(word) for word in words])

    def fill(*models: str) -> Callable[..., Result]:
        for name in models:
            install(shipped_folder(name))
        return call

    with BentoMLContainer.model_store.patch(ModelStore(tmp_path / "store" / "models")):
        yield fill
