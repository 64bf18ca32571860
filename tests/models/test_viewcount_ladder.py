"""The view-count family's ladder: measures, layers, companions, references, rolling origins, rungs, pictures."""

import json
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch

from models.training.datasets import Provenance
from models.training.experiment import ExperimentOutcome, ExperimentRun
from models.training.loop import fit
from models.viewcount.schema import Assets
from models.viewcount.train import baselines, companions, rolling_origin
from models.viewcount.train.data import OTEXTS, ViewData
from models.viewcount.train.experiments import LADDER
from models.viewcount.train.layers import ACTIVATIONS, HardSigmoid, Log, Raw, Weekday, measure
from models.viewcount.train.net import DenseConfig, DenseNet
from models.viewcount.train.plots import draw_depth, draw_forecast
from models.viewcount.train.recipe import RECIPES, ViewCountLearner, ViewMethod

ASSETS = Assets()
NOWHERE = Provenance(name="made up", licence="none", attribution="nobody", sha256={})


def series(views: np.ndarray, bounds: tuple[int, int, int], first_day: date = date(2018, 1, 1)) -> ViewData:
    return ViewData(provenance=NOWHERE, views=views.astype(np.float32), first_day=first_day, bounds=bounds)


def weekly(days: int) -> np.ndarray:
    """Return a week of 100, 200, ... 700 views, again and again."""
    return 100.0 * (1 + np.arange(days) % 7)


# Layers and measures


def test_hard_sigmoid_by_heart() -> None:
    """Flat at 0 and 1, a half in the middle, a sixth up per unit between."""
    found = HardSigmoid()(torch.tensor([-10.0, -3.0, -1.5, 0.0, 1.5, 3.0, 10.0]))
    assert found.tolist() == [0.0, 0.0, 0.25, 0.5, 0.75, 1.0, 1.0]


@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_activations_rise(name: str) -> None:
    """Every activation is there, and none falls."""
    assert (ACTIVATIONS[name]()(torch.linspace(-4, 4, 33)).diff() >= 0).all()


def test_raw_by_heart() -> None:
    """Standardised by the training days' mean and standard deviation; an answer of 1 is one deviation above it."""
    seen = Raw()
    seen.fit(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 9.0]]))  # mean 4, variance 40 / 5
    views = torch.tensor([[4.0, 4.0 + 8**0.5]])
    torch.testing.assert_close(seen(views), torch.tensor([[0.0, 1.0]]))
    torch.testing.assert_close(seen.answer(torch.tensor([[0.0, -1.0]]), views), torch.tensor([[4.0, 4 - 8**0.5]]))


def test_log_by_heart() -> None:
    """Twice the level is log 2 above it and half is as far below; no views count as one view."""
    seen, views = Log(days=2), torch.tensor([[0.0, 8.0, 4.0, 1.0]])
    # The level's logarithm is the mean of log 4 and log 1, that of 2 views.
    torch.testing.assert_close(seen(views), torch.tensor([[0.5, 4.0, 2.0, 0.5]]).log())
    own = torch.tensor([[0.0, 1.0, -1.0]]) * np.log(2)
    torch.testing.assert_close(seen.answer(own, views), torch.tensor([[2.0, 4.0, 1.0]]))
    torch.testing.assert_close(seen.target(torch.tensor([[2.0, 4.0, 1.0]]), views), own)


def test_log_does_not_overflow() -> None:
    """However wild the answer, the forecast is a number."""
    answer = Log(days=28).answer(torch.tensor([[1e9, -1e9]]), torch.full((1, 56), 1e9))
    assert answer.isfinite().all()


def test_weekday_by_heart() -> None:
    """A week that is ever the same is all zeros, and so is its forecast, four weeks long."""
    views = torch.from_numpy(weekly(56)).float()[None]
    seen = Weekday()
    assert torch.equal(seen(views), torch.zeros(1, 56))
    assert seen.answer(torch.zeros(1, 28), views)[0].tolist() == weekly(28).tolist()
    assert torch.equal(seen.target(views[:, :28] * 1.5, views), torch.full((1, 28), 0.5))


@pytest.mark.parametrize("name", ["raw", "level", "log", "weekday"])
def test_answer_and_target(name: str) -> None:
    """What the net should answer is what makes its answer true; unknown days stay unknown."""
    torch.manual_seed(0)
    views, future = torch.randint(100, 1000, (5, 56)).float(), torch.randint(100, 1000, (5, 28)).float()
    future[2, 7:] = torch.nan
    seen = measure(name, 28)
    seen.fit(views)
    torch.testing.assert_close(
        seen.answer(seen.target(future, views), views), future, rtol=1e-4, atol=1e-2, equal_nan=True
    )


@pytest.mark.parametrize("days", [1, 7, 28])
@pytest.mark.parametrize("layers", [0, 1])
def test_days_out_of_sight(days: int, layers: int) -> None:
    """A net of seven days does not know the eighth; the last of the seven it knows."""
    torch.manual_seed(0)
    net = DenseNet(DenseConfig(days=days, measure="raw", layers=layers, members=1), ASSETS).eval()
    torch.nn.init.normal_(net.last)
    views = torch.randint(100, 1000, (3, 56)).float()
    earlier, seen = views.clone(), views.clone()
    earlier[:, : 56 - days] += 500
    seen[:, 56 - days] += 500
    with torch.inference_mode():
        assert torch.equal(net.estimate(views), net.estimate(earlier))
        assert not torch.equal(net.estimate(views), net.estimate(seen))


# Learning


def learner(data: ViewData, method: ViewMethod, network: DenseConfig) -> ViewCountLearner:
    return ViewCountLearner(replace(RECIPES[0], method=method, network=network), None, 0, data)


@pytest.mark.parametrize(
    ("loss", "expected"), [("absolute", 0.5), ("squared", 0.25), ("huber", (0.2 * 0.5 - 0.5 * 0.2**2) / 0.2)]
)
def test_losses_by_heart(loss: str, expected: float) -> None:
    """A net that says the level stays, and truths that are half a level away."""
    views = np.where(np.arange(300) % 2, 100.0, 300.0)
    found = learner(series(views, (200, 240, 300)), ViewMethod(loss=loss), DenseConfig(members=3))  # type: ignore[arg-type]
    for batch in found.batches(np.random.default_rng(0)):
        assert found.loss(batch).item() == pytest.approx(3 * expected, rel=1e-5)


def test_weights_by_heart() -> None:
    """A window of half the weight counts half."""
    found = learner(series(weekly(300), (200, 240, 300)), ViewMethod(), DenseConfig(members=1))
    (views, future, weight), *_ = found.batches(np.random.default_rng(0))
    assert (weight == 1).all()
    whole = found.loss((views, future, weight)).item()
    assert found.loss((views, future, weight / 2)).item() == pytest.approx(whole / 2)


def test_companion_windows() -> None:
    """A window with a gap is no past, but a gap in the future is only unknown."""
    views = np.arange(56 + 28 + 3, dtype=np.float32)
    past, future = companions.windows(views)
    assert past.shape == (4, 56)
    assert future[0].tolist() == list(range(56, 84))
    views[58] = np.nan
    past, future = companions.windows(views)
    assert past.shape == (3, 56)
    assert past[:, 0].tolist() == [0, 1, 2]
    assert np.isnan(future).sum(1).tolist() == [1, 1, 1]


def test_companions_are_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their windows join the training ones with their weight; own data, and scores, stay without."""
    monkeypatch.setattr(companions, "load", lambda name: np.arange(56 + 28 + 1, dtype=np.float32))
    names = tuple((name, 0.25) for name in companions.WIKIPEDIA.files)
    found = learner(series(weekly(300), (200, 240, 300)), ViewMethod(companions=names), DenseConfig(members=1))
    assert found.lessons[2].tolist() == [1.0] * 144 + [0.25] * 4
    assert len(found.splits["train"][0]) == 144
    assert set(found.data.provenance.sha256) == set(companions.WIKIPEDIA.files)
    pooled = found.pooled()
    assert pooled is not None
    assert pooled.lessons[2].tolist() == [1.0] * 184 + [0.25] * 4
    assert pooled.data.provenance == found.data.provenance


def test_own_data_are_learned_alone(tmp_path: Path) -> None:
    """A user's file needs no download, and its provenance names nothing else."""
    path = tmp_path / "views.csv"
    rows = [f"{date(2024, 1, 1) + timedelta(days=day)},{100 + day}" for day in range(256)]
    path.write_text("\n".join(["date,views", *rows]) + "\n")
    found = ViewCountLearner(RECIPES[0], path, 0)
    assert len(found.lessons[0]) == len(found.splits["train"][0])
    assert found.data.provenance.name == "views.csv"


def test_not_pooled() -> None:
    """Early stopping's half year is kept out."""
    found = learner(series(weekly(300), (200, 240, 300)), ViewMethod(is_pooled=False), DenseConfig(members=1))
    assert found.pooled() is None


# References


def test_days_ago_by_heart() -> None:
    """A weekly series is known a week ago; yesterday is 100 less, but for one day in seven, which is 600 less."""
    data = series(weekly(56 + 21), (63, 70, 77))
    assert baselines.days_ago(7, data) == {"train": 0.0, "validation": 0.0, "test": 0.0}
    wanted = pytest.approx((6 * 100 + 600) / 7)
    assert baselines.days_ago(1, data) == {"train": wanted, "validation": wanted, "test": wanted}


@pytest.mark.parametrize("is_log", [False, True])
def test_holt_winters_knows_a_week(is_log: bool) -> None:
    """A week that is ever the same, or grows by the same factor, is forecast almost exactly."""
    pytest.importorskip("statsmodels")
    views = weekly(140) * (1.002 ** np.arange(140) if is_log else 1)
    errors = baselines.holt_winters(series(views, (112, 126, 140)), is_log=is_log)
    assert max(errors.values()) < 2.0


def test_holt_winters_sees_no_later_day() -> None:
    """A forecast is the same whatever the day itself, and the days after it, bring."""
    pytest.importorskip("statsmodels")
    rng = np.random.default_rng(0)
    views = weekly(140) + 1000 + rng.normal(0, 40, 140).cumsum()
    changed = views.copy()
    changed[120:] += 1000
    before, after = baselines.smooth(views, 112), baselines.smooth(changed, 112)
    np.testing.assert_allclose(before[:121], after[:121], rtol=1e-6)
    assert abs(after[121] - before[121]) > 1


# Rolling origin


@pytest.mark.parametrize("origin", rolling_origin.ORIGINS)
def test_origins_see_nothing_later(origin: tuple[date, date, date]) -> None:
    """At an origin the series ends; all is learned from days before its test, and the year 2021 is in none."""
    data = series(np.arange(1561.0), (912, 1096, 1461))
    then = rolling_origin.earlier(data, origin)
    validation, test, end = origin
    assert validation < test < end <= date(2021, 1, 1)
    assert then.first_day + timedelta(days=len(then.views)) == end
    found = learner(then, ViewMethod(), DenseConfig(members=1))
    pooled = found.pooled()
    assert pooled is not None
    first_tested = then.target_days("test").start
    for lessons in (found.lessons, pooled.lessons):
        assert max(float(part.nan_to_num().max()) for part in lessons[:2]) == (
            first_tested - 1 if lessons is pooled.lessons else then.target_days("validation").start - 1
        )
    assert float(found.splits["test"][1].nan_to_num().max()) == end.toordinal() - data.first_day.toordinal() - 1


def test_rolling_learner_reports_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last learner of the first seed holds the mean and each origin's error; no other does."""
    monkeypatch.setattr(rolling_origin, "measure", lambda recipe, seed: [100.0, 200.0, 600.0])
    recipe = replace(RECIPES[0], method=ViewMethod(), network=DenseConfig(members=1))
    data = series(weekly(300), (200, 240, 300))
    found = rolling_origin.RollingLearner(recipe, None, 0, data)
    assert "rolling_origin" not in found.finish(tmp_path)
    found.is_calibrated = True
    assert found.finish(tmp_path)["rolling_origin"] == {
        "mean": 300.0,
        "until": {"2020-01-01": 100.0, "2020-07-01": 200.0, "2021-01-01": 600.0},
    }
    other = rolling_origin.RollingLearner(recipe, None, 1, data)
    other.is_calibrated = True
    assert "rolling_origin" not in other.finish(tmp_path)


# The ladder


@pytest.mark.parametrize("rung", LADDER.rungs, ids=lambda rung: rung.recipe.name)
def test_rungs_learn(rung: object, tmp_path: Path) -> None:
    """Every rung makes a net with the card's outputs; two steps of its own optimiser's kind change the loss."""
    recipe = rung.recipe  # type: ignore[attr-defined]
    rng = np.random.default_rng(0)
    data = series(weekly(300) * rng.lognormal(0, 0.1, 300), (200, 240, 300))
    torch.manual_seed(0)
    found = ViewCountLearner(replace(recipe, method=replace(recipe.method, companions=())), None, 0, data)
    batch = next(iter(found.batches(rng)))
    optimizer = torch.optim.Adam(found.net.parameters(), 1e-3)
    before = found.loss(batch)
    for _ in range(2):
        optimizer.zero_grad()
        found.loss(batch).backward()
        optimizer.step()
    assert found.loss(batch).item() < before.item()
    found.net.eval()
    more = found.finish(tmp_path)
    assert len(more["forecast"]["real"]) == len(more["forecast"]["estimated"]) == 60
    assert {name: tuple(out.shape) for name, out in found.net(batch[0][:3]).items()} == dict.fromkeys(
        ("forecast", "lower", "upper"), (3, 28)
    )


@pytest.mark.data(OTEXTS)
def test_rolling_origin_is_reported(tmp_path: Path) -> None:
    """The net that has seen all days before the test reports the error at each origin; of other seeds, none."""
    recipe = replace(LADDER.rungs[0].recipe, plan=replace(LADDER.rungs[0].recipe.plan, epochs=1))
    for seed in (0, 1):
        report = fit(
            rolling_origin.RollingLearner(recipe, None, seed),
            recipe,
            seed=seed,
            directory=tmp_path / str(seed),
            quiet=True,
        )
        assert ("rolling_origin" in report) == (seed == 0)
    assert len(json.loads((tmp_path / "0" / "result.json").read_text())["rolling_origin"]["until"]) == 3


def test_names() -> None:
    """Names are the family's, short, and each stands once; the shipped model is a rung."""
    names = [rung.recipe.name for rung in LADDER.rungs] + [each.name for each in LADDER.references]
    assert len(names) == len(set(names))
    assert all(name.startswith("viewcount") and len(name) <= 40 for name in names)
    assert LADDER.rungs[-1].recipe.settings() == RECIPES[0].settings()


def test_pictures(tmp_path: Path) -> None:
    """Both pictures can be drawn from results alone."""
    rng = np.random.default_rng(0)

    def outcome(number: int) -> ExperimentOutcome:
        scores = {"train": 1000.0 - number, "validation": 1200.0 + number, "test": 1600.0 + number}
        year = {"real": rng.integers(9, 99, 365).tolist(), "estimated": rng.integers(9, 99, 365).tolist()}
        trial = ExperimentRun(seed=0, scores=scores, seconds=1.0, epochs=1, best_epoch=1, more={"forecast": year})
        common = {"metric": "error", "unit": "views", "settings": {}, "parameters": 1, "threads": 1}
        return ExperimentOutcome(section="s", label=f"net {number}", trials=[trial], **common)

    results = {rung.recipe.name: outcome(number) for number, rung in enumerate(LADDER.rungs)}
    for picture in LADDER.pictures:
        picture.draw(tmp_path / picture.file, results)
        assert (tmp_path / picture.file).read_bytes().startswith(b"\x89PNG")
    assert {draw_forecast, draw_depth} == {getattr(p.draw, "func", p.draw) for p in LADDER.pictures}
