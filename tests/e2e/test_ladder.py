"""Every rung of every ladder keeps the promises of the shipped models: it trains, is certified, and is served."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import date, timedelta
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import orjson
import pytest
import torch
from PIL import Image

from export.certify import export_run
from models.artifact.manifest import read_artifact
from models.registry import FAMILIES
from models.runtime.predictor import Predictor, open_predictor
from models.runtime.session import open_artifact
from models.train.__main__ import train
from models.train.experiments import load_ladder
from models.training.experiment import Experiment

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def distinct_rungs() -> Iterator[Experiment]:
    """Yield one rung for each network of a task: rungs that differ in loss or optimiser export the same graph."""
    seen = set()
    for family in FAMILIES:
        for rung in load_ladder(family.name).rungs:
            key = rung.recipe.card.task, repr(rung.recipe.network)
            if key not in seen:
                seen.add(key)
                yield rung


RUNGS = {rung.recipe.name: rung for rung in distinct_rungs()}
# Lower than any shipped model's.
VERSION = "0.0.1"
# One in four is trained, certified and served wherever end-to-end tests run; all of them take both cores four minutes.
EACH = 4
every_rung = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if position % EACH else []) for position, name in enumerate(RUNGS)],
)


def write_views(folder: Path) -> Path:
    """Return a year and a half of a channel that grows and rests at weekends."""
    rng = np.random.default_rng(0)
    days = [date(2020, 1, 1) + timedelta(days=number) for number in range(550)]
    rest = [0.7 if day.weekday() > 4 else 1.0 for day in days]
    views = [int((500 + number) * share * rng.uniform(0.95, 1.05)) for number, share in enumerate(rest)]
    file = folder / "views.csv"
    file.write_text("date,views\n" + "".join(f"{day},{count}\n" for day, count in zip(days, views, strict=True)))
    return file


def write_sentences(folder: Path) -> Path:
    """Return the same word as a verb and as a noun."""
    block = "".join(
        f"{position}\t{word}\t_\t{tag}" + "\t_" * 6 + "\n"
        for position, (word, tag) in enumerate((("I", "PRON"), ("saw", "VERB"), ("a", "DET"), ("saw", "NOUN")), start=1)
    )
    file = folder / "sentences.conllu"
    file.write_text("\n".join([block] * 30))
    return file


def write_pictures(folder: Path) -> Path:
    """Three classes that differ in brightness, with noise."""
    rng = np.random.default_rng(0)
    for label, level in enumerate((20, 120, 220)):
        part = folder / f"class-{label}"
        part.mkdir(parents=True)
        for number in range(14):
            pixels = np.clip(rng.normal(level, 30, (28, 28)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(part / f"{number}.png")
    return folder


def write_papers(folder: Path) -> Path:
    """Thirty papers of three fields in a ring, with words of their field."""
    rng = np.random.default_rng(0)
    labels = np.arange(30) % 3
    words = [np.unique(np.append(rng.integers(0, 12, 3), 12 + label)) for label in labels]
    file = folder / "papers.npz"
    np.savez(
        file,
        indptr=np.cumsum([0, *map(len, words)]),
        indices=np.concatenate(words),
        shape=np.array([30, 15]),
        labels=labels,
        edges=np.array([(paper, (paper + 3) % 30) for paper in range(30)]),
    )
    return file


def write_molecules(folder: Path) -> Path:
    """Forty chains and rings of two kinds of atoms in the TU format."""
    edges, graphs, labels, atoms = [], [], [], []
    for number in range(40):
        first, size = len(atoms) + 1, 4 + number % 4
        members = list(range(first, first + size))
        links = [*pairwise(members), *([(members[-1], first)] if number % 2 else [])]
        edges += [pair for u, v in links for pair in (f"{u}, {v}", f"{v}, {u}")]
        graphs += [str(number + 1)] * size
        atoms += [str(position % 2) for position in range(size)]
        labels.append(str(number % 2))
    for name, lines in {"A": edges, "graph_indicator": graphs, "graph_labels": labels, "node_labels": atoms}.items():
        (folder / f"TINY_{name}.txt").write_text("\n".join(lines) + "\n")
    return folder


WRITERS: dict[str, Callable[[Path], Path]] = {
    "forecast": write_views,
    "tag": write_sentences,
    "classify": write_pictures,
    "label_nodes": write_papers,
    "label_graph": write_molecules,
}


@pytest.fixture(scope="module")
def own_data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny data of one's own for each task."""
    return {task: write(tmp_path_factory.mktemp(task)) for task, write in WRITERS.items()}


@pytest.fixture(scope="module")
def artifacts(
    own_data: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> dict[str, Path | str]:
    """The artifact of each rung that a chosen test asks for, after one epoch; or why there is none."""
    folder = tmp_path_factory.mktemp("rungs")
    chosen = {item.callspec.params["name"] for item in request.session.items if item.path == Path(__file__)}  # type: ignore[attr-defined]
    jobs = [(name, own_data[RUNGS[name].recipe.card.task], folder) for name in RUNGS if name in chosen]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        return dict(zip((name for name, *_ in jobs), pool.map(certify, jobs), strict=True))


def certify(job: tuple[str, Path, Path]) -> Path | str:
    """Return one rung's artifact, or what went wrong: that is then its test's failure, and no other's."""
    name, data, folder = job
    torch.set_num_threads(1)
    recipe = RUNGS[name].recipe
    short = replace(recipe, plan=replace(recipe.plan, epochs=1, batch_size=8))
    try:
        train(short, name, data=data, seed=0, runs=folder / "runs", quiet=True)
        return export_run(name, VERSION, runs=folder / "runs", target=folder / "artifacts" / name)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


@pytest.fixture(scope="module")
def rung_server(artifacts: dict[str, Path | str], launch: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One server with every rung that was certified."""
    folders = [str(folder) for folder in artifacts.values() if isinstance(folder, Path)]
    return launch(*folders, LECTERN_MODELS=",".join(f"{Path(folder).name}:{VERSION}" for folder in folders))


@every_rung
def test_certified(name: str, artifacts: dict[str, Path | str]) -> None:
    """The certificate proves parity with torch, frozen batch norm and bit-identical answers in any batch."""
    folder = artifacts[name]
    assert isinstance(folder, Path), folder
    manifest, _ = read_artifact(folder)
    proof = manifest.certificate
    assert manifest.training.recipe["network"] == json.loads(json.dumps(RUNGS[name].recipe.settings()))["network"]
    assert proof.batch_invariance.bit_identical
    assert proof.batch_norm.training_nodes == 0
    assert proof.score.label_changes == 0


@every_rung
def test_served(name: str, artifacts: dict[str, Path | str], rung_server: Any) -> None:
    """Random requests get, together over REST, the answers the artifact gives to each alone."""
    folder = artifacts[name]
    assert isinstance(folder, Path), folder
    predictor: Predictor = open_predictor(open_artifact(folder))
    rng = np.random.default_rng(3)
    instances = [predictor.card.random_request(rng, predictor.assets) for _ in range(5)]
    answers = rung_server.predict(name, *(msgspec.to_builtins(instance) for instance in instances))
    alone = [as_json(predictor.predict([instance])[0]) for instance in instances]
    assert json.dumps(answers) == json.dumps(alone)


def as_json(answer: Any) -> Any:
    """Return an answer as the service writes it."""
    option = orjson.OPT_SERIALIZE_NUMPY
    return orjson.loads(orjson.dumps(answer, default=lambda array: array.tolist(), option=option))
