"""The ladder: training what is missing, and a page that says what the results say."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from models.errors import DataError
from models.registry import FAMILIES
from models.train import experiments as ladder_module
from models.train.experiments import DOCS, climb, load_ladder, main, missing, plain, start
from models.training import experiment_report, plots
from models.training.datasets import ACCURACY, Provenance, ScoreMetric
from models.training.ending import GO_ON, TrainingEnd
from models.training.experiment import (
    Experiment,
    ExperimentOutcome,
    ExperimentPlan,
    ExperimentRun,
    Plot,
    Reference,
    Results,
    Speed,
    read_results,
    write_results,
)
from models.training.loop import Recipe, TrainingPlan
from models.viewcount import FORECAST

ERROR = ScoreMetric(name="squared error", unit="apples", is_better_high=False)
every_family = pytest.mark.parametrize("family", [family.name for family in FAMILIES])


@dataclass(frozen=True)
class Slope:
    """A network's settings: where the line starts."""

    start: float = 0.0


@dataclass
class LineData:
    """Describe what the loop wants to know of data."""

    metric: ScoreMetric = ERROR
    provenance: Provenance = Provenance(name="a line", licence="none", attribution="nobody", sha256={})  # noqa: RUF009


class Line:
    """Learns y = 2 x; counts how often it was made."""

    made: list[tuple[str, int]] = []

    def __init__(self, recipe: Recipe, path: Path | None, seed: int) -> None:
        Line.made.append((recipe.name, seed))
        self.data = LineData()
        self.net = nn.Linear(1, 1, bias=False)
        nn.init.constant_(self.net.weight, recipe.network.start - 10 * seed)
        self.x = torch.linspace(-1, 1, 8)[:, None]

    def batch_count(self) -> int:
        return 1

    def batches(self, rng: np.random.Generator) -> Iterator[Tensor]:
        yield self.x

    def loss(self, batch: Tensor) -> Tensor:
        return (self.net(batch) - 2 * batch).square().mean()

    def score(self, split: str) -> float:
        with torch.inference_mode():
            return float(self.loss(self.x))

    def finish(self, directory: Path, ending: TrainingEnd = GO_ON) -> dict[str, Any]:
        return {"interval": {"width": 1}, "private": 2}

    def pooled(self) -> None:
        return None

    def draw(self, directory: Path) -> None:
        return None


def rung(name: str, *, seeds: int = 1, epochs: int = 3, section: str = "lines") -> Experiment:
    plan = TrainingPlan(epochs=epochs, patience=epochs, batch_size=8, learning_rate=0.1)
    recipe = Recipe(name=name, card=FORECAST, summary="a line", plan=plan, network=Slope(), learner=Line)
    return Experiment(section=section, label=f"the {name} line", recipe=recipe, seeds=seeds)


def draw_scores(path: Path, results: Results) -> None:
    plots.lines(path, {"lines": {1: 2.0, 3: 4.0}}, x="place", y="score")


PICTURE = Plot(file="lines.png", caption="Lines", draw=draw_scores)
REFERENCE = Reference(section="nothing learned", name="zero", label="zero", measure=lambda: {"test": 1234.56789})
SMALL = ExperimentPlan(
    family="viewcount",
    metric=ERROR,
    rungs=(rung("straight", seeds=2), rung("steep")),
    references=(REFERENCE,),
    pictures=(PICTURE,),
)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No learner made yet; torch as it was before."""
    Line.made = []
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Climbs a ladder in a folder of its own; gives its results and the page."""

    def climb_one(
        ladder: ExperimentPlan, *only: str, is_quick: bool = False
    ) -> tuple[dict[str, ExperimentOutcome], str]:
        monkeypatch.setattr(ladder_module, "load_ladder", lambda family: ladder)
        path = climb(ladder, docs=tmp_path, runs=tmp_path / "runs", jobs=1, only=only, is_quick=is_quick)
        return read_results(path), (tmp_path / "families.md").read_text()

    return climb_one


def test_climb(run: Any) -> None:
    """Every rung is trained with every seed, references are measured, and what the learner found is kept."""
    results, page = run(SMALL)
    assert Line.made == [("straight", 0), ("straight", 1), ("steep", 0)]
    assert list(results) == ["zero", "straight", "steep"]
    assert [trial.seed for trial in results["straight"].trials] == [0, 1]
    first = results["straight"].trials[0]
    assert first.epochs == 3
    assert first.more == {"interval": {"width": 1}}
    assert results["straight"].parameters == 1
    assert results["zero"].trials[0].scores == {"test": 1234.5679}
    assert "| nothing learned | zero |  |  |  | 1,235 |  |" in page
    scores = [trial.scores["test"] for trial in results["straight"].trials]
    cell = f"{sum(scores) / 2:.0f} ± {abs(scores[0] - scores[1]) / 2**0.5:.0f}"
    assert f"| lines | the straight line | 1 | {cell} | {cell} | {cell} | 0 |" in page
    assert "![Lines](pictures/lines.png)" in page


def test_nothing_is_trained_twice(run: Any) -> None:
    """Called again it trains nothing, measures nothing and writes the same page."""
    first = run(SMALL)
    Line.made = []
    unmeasured = replace(REFERENCE, measure=lambda: pytest.fail("measured again"))
    assert run(replace(SMALL, references=(unmeasured,))) == first
    assert Line.made == []


def test_what_changed_is_trained_again(run: Any) -> None:
    """Other settings, more seeds and new rungs are trained; a rung that is gone leaves the results."""
    before, _ = run(SMALL)
    Line.made = []
    results, _ = run(replace(SMALL, rungs=(rung("straight", seeds=3), rung("steep", epochs=4), rung("late"))))
    assert Line.made == [("straight", 2), ("steep", 0), ("late", 0)]
    assert results["straight"].trials[:2] == before["straight"].trials
    assert results["steep"].trials[0].epochs == 4
    results, page = run(replace(SMALL, rungs=(rung("late"),)))
    assert list(results) == ["zero", "late"]
    assert "steep" not in page


def test_stopped_and_called_again(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the second training keeps the first one's result; the next call trains the rest only."""
    whole = run(SMALL)[0]
    for path in (tmp_path / "ladder" / "viewcount.json", tmp_path / "families.md"):
        path.unlink()
    trainings = ladder_module.train
    calls = []

    def interrupted(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return trainings(*arguments, **options)

    monkeypatch.setattr(ladder_module, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(SMALL)
    kept = read_results(tmp_path / "ladder" / "viewcount.json")
    assert {name: len(outcome.trials) for name, outcome in kept.items()} == {"zero": 1, "straight": 1, "steep": 0}
    results, _ = run(SMALL)
    assert len(calls) == 4
    assert {n: o.scores("test") for n, o in results.items()} == {n: o.scores("test") for n, o in whole.items()}


def test_only_what_was_asked_for(run: Any) -> None:
    """``--rung`` leaves the others untrained and off the table."""
    results, page = run(SMALL, "steep")
    assert Line.made == [("steep", 0)]
    assert not results["straight"].trials
    assert "straight" not in page
    assert [name for name, _ in missing(SMALL, results, ())] == ["straight", "straight"]


def test_quick(run: Any) -> None:
    """Quickly each rung is trained once, for one epoch, in its short form."""
    short = replace(SMALL, shorten=lambda recipe: replace(recipe, network=Slope(start=5.0)))
    results, _ = run(short, is_quick=True)
    assert Line.made == [("straight", 0), ("steep", 0)]
    assert results["steep"].trials[0].epochs == 1
    assert results["steep"].settings["network"] == {"start": 5.0}


def test_folds_count_as_scores() -> None:
    """A cross-validated rung shows the mean and spread over folds on test, and of seeds elsewhere."""
    folds = [80.0, 90.0, 100.0]
    trial = ExperimentRun(
        seed=0,
        scores={"train": 99.0, "validation": 95.0, "test": 70.0},
        seconds=1,
        epochs=1,
        best_epoch=1,
        more={"cross_validation": {"folds": folds}},
    )
    outcome = ExperimentOutcome(
        section="s", label="l", metric="accuracy", unit="%", settings={}, parameters=7, threads=1, trials=[trial]
    )
    assert (outcome.mean("test"), outcome.spread("test")) == (90.0, 10.0)
    assert (outcome.mean("train"), outcome.spread("train")) == (99.0, 0.0)
    page = experiment_report.render(replace(SMALL, metric=ACCURACY), {"a": outcome})
    assert "| s | l | 7 | 99.00 | 95.00 | 90.00 ± 10.00 | 1 |" in page
    fast = msgspec.structs.replace(outcome, speed=Speed(unit="words", per_second=1234.0, memory_bytes=5_600_000))
    page = experiment_report.render(replace(SMALL, metric=ACCURACY), {"a": outcome, "b": fast})
    assert (
        "| question | model | numbers learned | train | validation | test | seconds | words per second | memory in"
        in page
    )
    assert "| 90.00 ± 10.00 | 1 | 1,234 | 6 |" in page
    assert "| 90.00 ± 10.00 | 1 |  |  |" in page


def test_page_without_a_place(tmp_path: Path, run: Any) -> None:
    """A page without the family's marks is left alone, with a sentence; the rest of a page with them stays."""
    page = tmp_path / "families.md"
    page.write_text("# Mine\n")
    with pytest.raises(DataError, match="found no place for the ladder, expected <!-- ladder:viewcount -->"):
        run(SMALL)
    assert page.read_text() == "# Mine\n"
    page.write_text("# Mine\n<!-- ladder:viewcount -->\nstale\n<!-- /ladder:viewcount -->\nend\n")
    assert run(SMALL)[1].startswith("# Mine\n<!-- ladder:viewcount -->\nSquared error in apples")
    assert run(SMALL)[1].endswith("\n<!-- /ladder:viewcount -->\nend\n")
    assert "stale" not in page.read_text()


def test_stamp(tmp_path: Path, run: Any) -> None:
    """A picture says which results it was drawn from."""
    run(SMALL)
    content = (tmp_path / "ladder" / "viewcount.json").read_bytes()
    assert experiment_report.read_stamp(tmp_path / "pictures" / "lines.png") == hashlib.sha256(content).hexdigest()


def test_command_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An unknown rung is refused with the known ones; Ctrl-C says how to go on and exits with 130."""
    monkeypatch.setattr(ladder_module, "load_ladder", lambda family: SMALL)
    monkeypatch.setattr(ladder_module, "DOCS", tmp_path)
    monkeypatch.setattr(ladder_module, "RUNS", tmp_path / "runs")
    refused = CliRunner().invoke(main, ["viewcount", "--rung", "crooked"])
    assert refused.exit_code == 2
    assert "no rung 'crooked'; the rungs are straight, steep" in refused.output
    done = CliRunner().invoke(main, ["viewcount", "--rung", "steep"])
    assert done.exit_code == 0, done.output
    assert f"results: {tmp_path / 'ladder' / 'viewcount.json'}" in done.output
    quick = CliRunner().invoke(main, ["viewcount", "--quick"])
    assert f"results: {tmp_path / 'runs' / 'quick' / 'viewcount' / 'ladder' / 'viewcount.json'}" in quick.output

    def interrupt(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ladder_module, "climb", interrupt)
    stopped = CliRunner().invoke(main, ["viewcount"])
    assert (stopped.exit_code, "the same command goes on" in stopped.output) == (130, True)


@every_family
def test_pictures_of_unmeasured_rungs(family: str, tmp_path: Path) -> None:
    """Before any speed was measured, as in the brief training, every picture can be drawn."""
    results = read_results(DOCS / "ladder" / f"{family}.json")
    unmeasured = {name: msgspec.structs.replace(outcome, speed=None) for name, outcome in results.items()}
    for picture in load_ladder(family).pictures:
        picture.draw(tmp_path / picture.file, unmeasured)
        assert (tmp_path / picture.file).read_bytes()[:4] == b"\x89PNG"


@every_family
def test_rungs_are_named_once(family: str) -> None:
    """Names are unique over all families, fit a model's name, and begin a section once."""
    ladders = [load_ladder(one.name) for one in FAMILIES]
    names = [rung.recipe.name for ladder in ladders for rung in ladder.rungs]
    names += [reference.name for ladder in ladders for reference in ladder.references]
    assert len(set(names)) == len(names)
    ladder = load_ladder(family)
    assert ladder.family == family
    assert all(len(rung.recipe.name) <= 40 for rung in ladder.rungs)
    assert all(rung.recipe.card.family == family for rung in ladder.rungs)


def untrue(family: str, docs: Path) -> list[str]:
    """Return what the page and the pictures say that the results do not."""
    ladder = load_ladder(family)
    path = docs / "ladder" / f"{family}.json"
    results = read_results(path)
    page = docs / experiment_report.PAGE
    faults = []
    if experiment_report.split(page.read_text(), family, page)[1] != experiment_report.render(ladder, results):
        faults.append(f"the page differs from {path}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    drawn = {
        picture.file: experiment_report.read_stamp(docs / "pictures" / picture.file) for picture in ladder.pictures
    }
    faults += [f"{file} was drawn from other results" for file, found in drawn.items() if found != digest]
    return faults


@every_family
def test_the_page_is_the_results(family: str) -> None:
    """Table and pictures of ``docs/families.md`` say what ``docs/ladder`` says."""
    assert untrue(family, DOCS) == []


@every_family
def test_a_changed_result_shows(family: str, tmp_path: Path) -> None:
    """The test above can fail: one score changed in the results, and page and pictures are found out."""
    docs = tmp_path / "docs"
    shutil.copytree(DOCS, docs)
    path = docs / "ladder" / f"{family}.json"
    results = read_results(path)
    name = next(name for name, outcome in results.items() if outcome.trials)
    trial = results[name].trials[0]
    changed = msgspec.structs.replace(trial, scores=trial.scores | {"test": trial.scores["test"] + 1.0})
    results[name] = msgspec.structs.replace(results[name], trials=[changed, *results[name].trials[1:]])
    write_results(path, results)
    assert f"the page differs from {path}" in untrue(family, docs)
    assert len(untrue(family, docs)) == 1 + len(load_ladder(family).pictures)


@every_family
def test_every_rung_has_its_result(family: str) -> None:
    """All rungs were trained with all their seeds, by the settings they have now."""
    ladder = load_ladder(family)
    results = read_results(DOCS / "ladder" / f"{family}.json")
    assert list(missing(ladder, start(ladder, results, is_quick=False), ())) == []
    assert [*results] == [*(r.name for r in ladder.references), *(r.recipe.name for r in ladder.rungs)]


def test_settings_are_compared_as_json() -> None:
    """Tuples become lists in the results, so they must in the comparison."""
    settings = rung("straight").recipe.settings() | {"heads": (8, 1)}
    assert plain(settings) == json.loads(json.dumps(settings))
    assert plain(settings)["heads"] == [8, 1]
