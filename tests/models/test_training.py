"""The one training loop: known answers, resuming to the bit, stopping early, and its command line."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from models.errors import DataError, LecternError
from models.train import __main__ as train_module
from models.train.__main__ import choose_recipe, main, read_run, recipes, start_run, train
from models.training.checkpoint import BEST_WEIGHTS, CHECKPOINT, FINAL_WEIGHTS, REPORT
from models.training.datasets import ACCURACY, Provenance, ScoreMetric
from models.training.ending import GO_ON, TrainingEnd, time_left
from models.training.loop import OPTIMIZERS, Learner, OptimizerName, Recipe, TrainingPlan, fit, seed_everything
from models.viewcount import FORECAST
from models.viewcount.train.net import DenseConfig
from models.viewcount.train.recipe import ViewCountLearner

ERROR = ScoreMetric(name="squared error", unit="", is_better_high=False)
PLAN = TrainingPlan(epochs=6, patience=6, batch_size=8, learning_rate=0.05)


@dataclass
class LineData:
    """Describe what the loop wants to know of data."""

    metric: ScoreMetric = ERROR
    provenance: Provenance = field(
        default_factory=lambda: Provenance(name="a line", licence="none", attribution="nobody", sha256={})
    )


class Line:
    """Learns y = 2 x + 1 from 32 points; may be interrupted, and may be given its validation scores."""

    def __init__(self, plan: TrainingPlan, net: nn.Module | None = None, scores: list[float] | None = None) -> None:
        self.plan, self.data = plan, LineData()
        self.net = net or nn.Linear(1, 1)
        self.x = torch.linspace(-1, 1, 32)[:, None]
        self.stop_at: tuple[int, int] | None = None
        self.scores, self.epoch = scores, 0
        self.drawn: list[Path] = []
        self.pool: Line | None = None

    def batch_count(self) -> int:
        return 32 // self.plan.batch_size

    def batches(self, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.from_numpy(rng.permutation(32))
        for step, rows in enumerate(order.split(self.plan.batch_size)):
            if self.stop_at == (self.epoch, step):
                raise KeyboardInterrupt
            yield self.x[rows], 2 * self.x[rows] + 1
        self.epoch += 1

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, y = batch
        loss: Tensor = (self.net(x) - y).square().mean()
        return loss

    def score(self, split: str) -> float:
        if self.scores is not None and split == "validation":
            return self.scores[self.epoch - 1]
        with torch.inference_mode():
            return float((self.net(self.x) - 2 * self.x - 1).square().mean())

    def finish(self, directory: Path, ending: TrainingEnd = GO_ON) -> dict[str, Any]:
        return {"interval": "as wide as it is long"}

    def pooled(self) -> "Line | None":
        return self.pool

    def draw(self, directory: Path) -> None:
        self.drawn.append(directory)


def line_recipe(plan: TrainingPlan) -> Recipe:
    def learner(recipe: Recipe, path: Path | None, seed: int) -> Learner:
        return Line(recipe.plan)  # type: ignore[return-value]

    return Recipe(name="line", card=FORECAST, summary="a line", plan=plan, network=DenseConfig(), learner=learner)


def wavering_net() -> nn.Module:
    """Return a net with dropout: its training draws from torch's generator."""
    return nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Dropout(0.5), nn.Linear(16, 1))


def learn(line: Line, directory: Path, seed: int = 0) -> dict[str, Any]:
    return fit(line, line_recipe(line.plan), seed=seed, directory=directory, quiet=True)  # type: ignore[arg-type]


def weights(path: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = torch.load(path, weights_only=True)
    return found


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture(autouse=True)
def free_determinism() -> Iterator[None]:
    """``seed_everything`` changes torch for the whole process; put it back."""
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("is_one_cycle", [False, True])
def test_known_answer(is_one_cycle: bool, optimizer: OptimizerName, tmp_path: Path) -> None:
    """A line learned from its points has slope 2 and intercept 1, with either schedule and optimiser."""
    seed_everything(0)
    line = Line(replace(PLAN, epochs=60, patience=60, is_one_cycle=is_one_cycle, optimizer=optimizer))
    report = learn(line, tmp_path)
    assert line.net.weight.item() == pytest.approx(2, abs=5e-3)  # type: ignore[union-attr, operator]
    assert line.net.bias.item() == pytest.approx(1, abs=5e-3)  # type: ignore[union-attr, operator]
    assert report["scores"]["test"] < 1e-5
    assert report["parameters"] == 2
    assert not line.net.training


def test_report(tmp_path: Path) -> None:
    """``result.json`` is the report: recipe, seed, scores, every epoch, what ``finish`` adds; pictures are drawn."""
    line = Line(PLAN)
    report = learn(line, tmp_path, seed=5)
    assert json.loads((tmp_path / REPORT).read_text()) == report
    assert (report["seed"], report["epochs"], len(report["history"])) == (5, 6, 6)
    assert report["recipe"]["name"] == "line"
    assert report["interval"] == "as wide as it is long"
    assert report["history"][-1].keys() == {"loss", "validation"}
    assert report["scores"]["validation"] == min(epoch["validation"] for epoch in report["history"])
    assert report["best_epoch"] == 1 + int(np.argmin([epoch["validation"] for epoch in report["history"]]))
    assert line.drawn == [tmp_path]
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize(
    ("stop_at", "is_one_cycle"), [((0, 0), True), ((0, 2), True), ((1, 0), False), ((3, 3), True), ((5, 1), False)]
)
def test_resumed_to_the_bit(stop_at: tuple[int, int], is_one_cycle: bool, tmp_path: Path) -> None:
    """Interrupted in any epoch and started again, the weights are those of the uninterrupted run, dropout and all."""
    plan = replace(PLAN, is_one_cycle=is_one_cycle)
    seed_everything(1)
    whole = learn(Line(plan, wavering_net()), tmp_path / "whole")
    seed_everything(1)
    broken = Line(plan, wavering_net())
    broken.stop_at = stop_at
    with pytest.raises(KeyboardInterrupt):
        learn(broken, tmp_path / "broken")
    assert (tmp_path / "broken" / CHECKPOINT).exists() == (stop_at[0] > 0)
    seed_everything(1)
    again = learn(Line(plan, wavering_net()), tmp_path / "broken")
    for name in (FINAL_WEIGHTS, BEST_WEIGHTS):
        assert same(weights(tmp_path / "whole" / name), weights(tmp_path / "broken" / name))
    assert again["history"] == whole["history"]
    assert again["scores"] == whole["scores"]


def test_resuming_needs_the_generator(tmp_path: Path) -> None:
    """Control: with torch's generator lost on the way, the resumed weights are others."""
    seed_everything(1)
    learn(Line(PLAN, wavering_net()), tmp_path / "whole")
    seed_everything(1)
    broken = Line(PLAN, wavering_net())
    broken.stop_at = (3, 0)
    with pytest.raises(KeyboardInterrupt):
        learn(broken, tmp_path / "broken")
    state = torch.load(tmp_path / "broken" / CHECKPOINT, weights_only=True)
    torch.manual_seed(99)
    torch.save({**state, "rng": torch.get_rng_state()}, tmp_path / "broken" / CHECKPOINT)
    learn(Line(PLAN, wavering_net()), tmp_path / "broken")
    final = weights(tmp_path / "whole" / CHECKPOINT)["net"], weights(tmp_path / "broken" / CHECKPOINT)["net"]
    assert not same(*final)  # type: ignore[arg-type]


def test_interrupted_while_pooling(tmp_path: Path) -> None:
    """A run stopped in its second half, on train and validation together, goes on there."""

    def both() -> tuple[Line, Line]:
        seed_everything(1)
        first = Line(PLAN, wavering_net())
        seed_everything(2)
        first.pool = Line(PLAN, wavering_net())
        seed_everything(1)
        return first, first.pool

    whole, _ = both()
    learn(whole, tmp_path / "whole")
    broken, pooled = both()
    pooled.stop_at = (4, 2)
    with pytest.raises(KeyboardInterrupt):
        learn(broken, tmp_path / "broken")
    again, last = both()
    report = learn(again, tmp_path / "broken")
    assert same(weights(tmp_path / "whole" / "pooled" / CHECKPOINT)["net"], last.net.state_dict())  # type: ignore[arg-type]
    assert same(weights(tmp_path / "whole" / FINAL_WEIGHTS), weights(tmp_path / "broken" / FINAL_WEIGHTS))
    assert report["scores"]["validation"] == min(epoch["validation"] for epoch in report["history"])


def test_pooled_keeps_the_last_epoch(tmp_path: Path) -> None:
    """The pooled net has no validation of its own: it ends with its last weights, whatever its scores."""
    line = Line(PLAN)
    line.pool = Line(PLAN, scores=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    learn(line, tmp_path)
    last = torch.load(tmp_path / "pooled" / CHECKPOINT, weights_only=True)["net"]
    assert same(last, weights(tmp_path / FINAL_WEIGHTS))


def test_same_seed_same_weights(tmp_path: Path) -> None:
    """Same seed, same weights to the bit; another seed, others."""
    for name, seed in (("one", 3), ("two", 3), ("three", 4)):
        seed_everything(seed)
        learn(Line(PLAN, wavering_net()), tmp_path / name, seed)
    one, two, three = (weights(tmp_path / name / FINAL_WEIGHTS) for name in ("one", "two", "three"))
    assert same(one, two)
    assert not same(one, three)


@pytest.mark.parametrize(
    ("scores", "patience", "epochs", "best_epoch"),
    [
        ([5, 4, 3, 2, 1, 0], 3, 6, 6),
        ([5, 4, 5, 5, 5, 0], 3, 5, 2),
        ([5, 4, 5, 5, 3, 9], 3, 6, 5),
        ([5, 5, 5, 5, 5, 5], 2, 3, 1),
        ([5, 4, 5, 4, 3, 3], 1, 3, 2),
    ],
)
def test_patience(scores: list[float], patience: int, epochs: int, best_epoch: int, tmp_path: Path) -> None:
    """Training stops after so many epochs without a better score, and the best epoch's weights are kept."""
    line = Line(replace(PLAN, patience=patience), scores=[float(score) for score in scores])
    report = learn(line, tmp_path)
    assert (report["epochs"], report["best_epoch"]) == (epochs, best_epoch)
    assert report["scores"]["validation"] == scores[best_epoch - 1]
    is_last = same(weights(tmp_path / BEST_WEIGHTS), torch.load(tmp_path / CHECKPOINT, weights_only=True)["net"])
    assert is_last == (epochs == best_epoch)


def test_better_may_be_higher(tmp_path: Path) -> None:
    """The direction of better is the metric's."""
    line = Line(PLAN, scores=[1.0, 3.0, 2.0, 3.0, 1.0, 0.0])
    line.data = LineData(metric=ACCURACY)
    assert learn(line, tmp_path)["best_epoch"] == 2


def test_nan_score_is_not_best(tmp_path: Path) -> None:
    """A NaN is never the best score, neither at first nor later."""
    nan = float("nan")
    line = Line(PLAN, scores=[nan, 4.0, nan, 3.0, nan, nan])
    report = learn(line, tmp_path)
    assert (report["best_epoch"], report["scores"]["validation"]) == (4, 3.0)


def test_nan_loss_does_not_ship(tmp_path: Path) -> None:
    """Weights that a NaN loss has spoiled are not the ones kept."""

    class Spoiled(Line):
        def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
            return super().loss(batch) * (float("nan") if self.epoch >= 2 else 1.0)

    line = Spoiled(PLAN)
    report = learn(line, tmp_path)
    assert report["best_epoch"] == 2
    assert all(torch.isfinite(tensor).all() for tensor in weights(tmp_path / FINAL_WEIGHTS).values())
    assert not torch.isfinite(torch.load(tmp_path / CHECKPOINT, weights_only=True)["net"]["weight"]).any()


def test_never_a_number(tmp_path: Path) -> None:
    """A run without one finite validation score ends with the project's own error."""
    with pytest.raises(LecternError):
        learn(Line(PLAN, scores=[float("nan")] * 6), tmp_path)


def test_gradients_are_clipped(tmp_path: Path) -> None:
    """A step is no longer than the bound on the gradient's norm allows."""
    line = Line(replace(PLAN, epochs=1, clip_norm=1e-12, weight_decay=0.0, is_one_cycle=False))
    before = {key: value.clone() for key, value in line.net.state_dict().items()}
    learn(line, tmp_path)
    after = line.net.state_dict()
    # Adam divides by the gradient's size plus 1e-8: a gradient of 1e-12 moves a weight by 1e-4 of the rate.
    assert max(float((after[key] - before[key]).abs().max()) for key in before) < 1e-3


# Runs and the command line


def write_views(path: Path, count: int = 256) -> Path:
    rows = [f"{date(2024, 1, 1) + timedelta(days=day)},{1000 + 37 * (day % 7)}" for day in range(count)]
    path.write_text("\n".join(["date,views", *rows]) + "\n")
    return path


def small_recipe() -> Recipe:
    recipe = recipes("viewcount")["viewcount"]
    plan = replace(recipe.plan, epochs=2)
    return replace(recipe, plan=plan, network=DenseConfig(members=2, width=4, dropout=0.3))


def test_train_own_views(tmp_path: Path) -> None:
    """A user's CSV trains the shipped recipe, twice to the same bits, with report and picture."""
    views = write_views(tmp_path / "views.csv")
    for name in ("one", "two"):
        report = train(small_recipe(), name, data=views, seed=7, runs=tmp_path / "runs", quiet=True)
    one, two = (weights(tmp_path / "runs" / name / FINAL_WEIGHTS) for name in ("one", "two"))
    assert same(one, two)
    assert report["data"]["name"] == "views.csv"
    assert (tmp_path / "runs" / "one" / "forecast.png").exists()
    assert read_run(tmp_path / "runs" / "one")[1] == views
    again = train(small_recipe(), "one", data=views, seed=7, runs=tmp_path / "runs", quiet=True)
    assert again["history"] == report["history"]


def test_start_run_refuses_another(tmp_path: Path) -> None:
    """A folder with a run of another seed, recipe or data is not gone on with; the same run is."""
    recipe, folder = small_recipe(), tmp_path / "mine"
    start_run(folder, recipe, None, 0)
    start_run(folder, recipe, None, 0)
    others = (
        (recipe, None, 1),
        (recipe, tmp_path / "views.csv", 0),
        (replace(recipe, plan=replace(recipe.plan, learning_rate=1.0)), None, 0),
        (replace(recipe, network=DenseConfig(width=5)), None, 0),
    )
    for other in others:
        with pytest.raises(DataError) as caught:
            start_run(folder, *other)
        assert str(caught.value) == (
            f"{folder}: found a run with another recipe, data or seed, expected the same, or no {folder}: remove it"
        )
    assert read_run(folder)[0].name == "viewcount"


def test_recipes() -> None:
    """Every family has recipes; the model's name, the option, or the family decides which is used."""
    assert list(recipes())[:6] == ["viewcount", "tagging", "image", "image-vit", "citation", "molecule"]
    assert list(recipes("image"))[:3] == ["image", "image-vit", "image-dense"]
    assert choose_recipe(None, "my-tags", "tagging-window-3").name == "tagging-window-3"
    assert choose_recipe(None, "image-vit", None).name == "image-vit"
    assert choose_recipe("image", "my-pets", None).name == "image"
    assert choose_recipe("image", "my-pets", "image-vit").name == "image-vit"
    assert choose_recipe(None, "my-pets", "molecule").name == "molecule"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--model", "nothing"], 2, "Error: no recipe 'nothing'; choose --recipe from viewcount, tagging, image, "),
        (["--model", "x", "--recipe", "gan"], 2, "Error: no recipe 'gan'; choose --recipe from viewcount, "),
        (["image", "--model", "x", "--recipe", "tagging"], 2, "choose --recipe from image, image-vit"),
        (["viewcount", "--model", "My Channel"], 2, "Error: a model's name is lower case letters, digits and dashes"),
        (["viewcount", "--model", "../x"], 2, "Error: a model's name is"),
        (["viewcount", "--model", "a" * 41], 2, "Error: a model's name is"),
        (["viewcount", "--model", "7up"], 2, "Error: a model's name is"),
        (["video", "--model", "x"], 2, "'video' is not one of 'viewcount', 'tagging', 'image', 'graph'"),
        (["viewcount"], 2, "Missing option '--model'"),
        (["viewcount", "--model", "x", "--epochs", "0"], 2, "0 is not in the range x>=1"),
        (["viewcount", "--model", "x", "--data", "no/such.csv"], 2, "'no/such.csv' does not exist"),
        (["viewcount", "--model", "x", "--seed", "-1"], 2, "seed"),
    ],
)
def test_bad_command_line(arguments: list[str], status: int, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad command line gets its reason and exit status 2, and nothing is trained."""
    monkeypatch.setattr(train_module, "train", None)
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code, message in result.output) == (status, True), result.output
    assert "Traceback" not in result.output


def test_bad_data_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bad data is one line with file and row, exit status 1, and leaves no run behind."""
    path = write_views(tmp_path / "views.csv")
    path.write_text(path.read_text().replace(",1037", ",lots", 1))
    result = CliRunner().invoke(main, ["viewcount", "--model", "no-such-run", "--data", str(path), "--quiet"])
    assert result.exit_code == 1
    assert result.output == (
        f"Error: {path}, row 3: found views 'lots', expected a whole number from 0 to 1000000000\n"
    )
    assert not (train_module.RUNS / "no-such-run").exists()


def test_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A good command line trains with what it says and prints a score per split."""
    asked: dict[str, Any] = {}

    def fake(recipe: Recipe, model: str, **options: Any) -> dict[str, Any]:
        asked.update(options, epochs=recipe.plan.epochs, model=model)
        return {"metric": {"name": "accuracy", "unit": "%"}, "scores": {"test": 93.25}}

    monkeypatch.setattr(train_module, "train", fake)
    path = write_views(tmp_path / "views.csv")
    result = CliRunner().invoke(
        main, ["viewcount", "--model", "my-channel", "--data", str(path), "--seed", "4", "--epochs", "3", "--quiet"]
    )
    assert (result.exit_code, "      test  accuracy 93.250 %\n" in result.output) == (0, True)
    assert asked.pop("ending") == GO_ON
    assert asked == {"data": path.resolve(), "seed": 4, "quiet": True, "epochs": 3, "model": "my-channel"}


def test_interrupted_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C says how to go on, and exits with 130."""

    def interrupt(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(train_module, "train", interrupt)
    result = CliRunner().invoke(main, ["--model", "viewcount"])
    assert result.exit_code == 130
    assert "the same command goes on from the last whole epoch" in result.output
    assert (
        "to end it with the best it has: .venv/bin/python -m models.train --model viewcount --finish" in result.output
    )


def stopped_run(runs: Path, monkeypatch: pytest.MonkeyPatch, *, after: int, epochs: int = 4) -> None:
    """A run ``mine`` of a user's views, stopped as by Ctrl-C when ``after`` epochs are whole, both halves counted."""
    whole = 0
    score = ViewCountLearner.score

    def stopping(learner: ViewCountLearner, split: str) -> float:
        nonlocal whole
        if whole == after:
            raise KeyboardInterrupt
        whole += 1
        return score(learner, split)

    recipe = small_recipe()
    recipe = replace(recipe, plan=replace(recipe.plan, epochs=epochs), reading={"date_format": "%Y-%m-%d"})
    views = write_views(runs / "views.csv")
    with monkeypatch.context() as patch:
        patch.setattr(ViewCountLearner, "score", stopping)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, "mine", data=views, seed=5, runs=runs, quiet=True)
    monkeypatch.setattr(train_module, "recipes", lambda: {"viewcount": small_recipe()})


@pytest.mark.parametrize(
    ("after", "ended"),
    [
        (2, {"epochs": 2, "of": 4, "half": "on training data", "kept": "the best weights until then"}),
        (
            5,
            {
                "epochs": 1,
                "of": 4,
                "half": "on training and validation data together",
                "kept": "what was learned from training data alone",
            },
        ),
    ],
)
def test_finished_with_what_it_has(
    after: int, ended: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``--finish`` ends a stopped run with the best weights of its first half, and the report says so."""
    stopped_run(tmp_path, monkeypatch, after=after)
    monkeypatch.setattr(train_module, "RUNS", tmp_path)
    result = CliRunner().invoke(main, ["--model", "mine", "--finish", "--quiet"])
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "mine" / REPORT).read_text())
    assert report["ended"] == ended
    assert report["recipe"]["reading"] == {"date_format": "%Y-%m-%d"}
    assert "ended after {epochs} of 4 epochs {half}: {kept} ships".format(**ended) in result.output
    best = weights(tmp_path / "mine" / BEST_WEIGHTS)
    final = weights(tmp_path / "mine" / FINAL_WEIGHTS)
    learned = [name for name in best if not name.endswith("_ratio")]
    assert all(torch.equal(best[name], final[name]) for name in learned)


def test_nothing_to_finish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run without a whole epoch cannot be finished, nor can one that was never begun; each in one line."""
    monkeypatch.setattr(train_module, "RUNS", tmp_path)
    for found in ("found no run, expected one that was begun", "no epoch is whole yet"):
        result = CliRunner().invoke(main, ["--model", "mine", "--finish", "--quiet"])
        assert (result.exit_code, found in result.output, result.output.count("\n")) == (1, True, 1), result.output
        stopped_run(tmp_path, monkeypatch, after=0)


def test_minutes(tmp_path: Path) -> None:
    """A run whose minutes are over ends after the epoch it is in, and goes on to the same weights when asked again."""
    for name, end in (("whole", GO_ON), ("short", TrainingEnd(deadline=0.0))):
        seed_everything(1)
        line = Line(PLAN, wavering_net())
        report = fit(line, line_recipe(PLAN), seed=0, directory=tmp_path / name, quiet=True, ending=end)  # type: ignore[arg-type]
    assert (report["epochs"], report["ended"]) == (
        1,
        {"epochs": 1, "of": 6, "half": "on training data", "kept": "the best weights until then"},
    )
    seed_everything(1)
    report = learn(Line(PLAN, wavering_net()), tmp_path / "short")
    assert "ended" not in report
    assert same(weights(tmp_path / "whole" / FINAL_WEIGHTS), weights(tmp_path / "short" / FINAL_WEIGHTS))


@pytest.mark.parametrize(
    ("epochs", "seconds", "said"),
    [(1, 2.0, "  at most 48 s left"), (5, 60.0, "  at most 4 min left"), (25, 9.0, "")],
)
def test_time_left(epochs: int, seconds: float, said: str) -> None:
    """After an epoch it is said how long the others take, by what they took so far."""
    assert time_left(epochs, 25, seconds) == said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["image", "--model", "x", "--date-column", "d"], "--date-column says nothing to image"),
        (["viewcount", "--model", "x", "--gaps", "guess"], "'guess' is not one of 'refuse', 'zero', 'interpolate'"),
        (["viewcount", "--model", "x", "--minutes", "0"], "0 is not in the range x>0"),
    ],
)
def test_options_of_own_data(arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a family's data do not know, and values that are not known, are a bad command line."""
    monkeypatch.setattr(train_module, "train", None)
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code, message in result.output) == (2, True), result.output
