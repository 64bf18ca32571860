"""The view-count family: codec, bounds, network, calibration, data."""

import math
from datetime import date, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from models.card import Prediction
from models.errors import DataError, Fault
from models.viewcount import FORECAST
from models.viewcount.codec import collate, cost, decode, encode
from models.viewcount.schema import Assets, Instance, example, validate
from models.viewcount.train import data
from models.viewcount.train.data import MIN_DAYS, load
from models.viewcount.train.layers import MemberLinear
from models.viewcount.train.net import DenseConfig, DenseNet
from models.viewcount.train.recipe import RECIPES, ViewCountLearner

ASSETS = Assets()
LINEAR = DenseConfig(layers=0, members=1)


def instance(*last: float, horizon: int = 7) -> Instance:
    """56 days of 10 views, the last as given."""
    return Instance(views=[10.0] * (56 - len(last)) + list(last), horizon=horizon)


def decode_json(views: str, more: str = "") -> Instance:
    return msgspec.json.decode(f'{{"views": {views}{more}}}', type=Instance)


def test_codec_by_heart() -> None:
    """The last 56 days go in, oldest first; each answer is cut to its own horizon."""
    samples = [
        encode(Instance(views=[float(day) for day in range(100)], horizon=2), ASSETS),
        encode(instance(), ASSETS),
    ]
    feeds = collate(samples)
    assert feeds["views"].dtype == np.float32
    assert feeds["views"].tolist() == [list(range(44, 100)), [10.0] * 56]
    rows = np.arange(2 * 28, dtype=np.float32).reshape(2, 28)
    predictions = decode({"forecast": rows, "lower": rows - 1, "upper": rows + 1}, samples, ASSETS)
    assert {key: value.tolist() for key, value in predictions[0].items()} == {
        "forecast": [0, 1],
        "lower": [-1, 0],
        "upper": [1, 2],
    }
    assert predictions[1]["forecast"].tolist() == [28, 29, 30, 31, 32, 33, 34]
    assert [cost(sample) for sample in samples] == [1, 1]


@pytest.mark.parametrize(
    ("views", "more", "message"),
    [
        ("[" + "1," * 54 + "1]", "", "Expected `array` of length >= 56 - at `$.views`"),
        ("[" + "1," * 3660 + "1]", "", "Expected `array` of length <= 3660 - at `$.views`"),
        ("[" + "1," * 55 + "-1]", "", "Expected `float` >= 0.0 - at `$.views[55]`"),
        ("[1000000001" + ",1" * 55 + "]", "", "Expected `float` <= 1000000000.0 - at `$.views[0]`"),
        ("[1,true" + ",1" * 55 + "]", "", "Expected `float`, got `bool` - at `$.views[1]`"),
        ('[1,"5"' + ",1" * 55 + "]", "", "Expected `float`, got `str` - at `$.views[1]`"),
        ("[1,null" + ",1" * 55 + "]", "", "Expected `float`, got `null` - at `$.views[1]`"),
        ("[[1]" + ",1" * 55 + "]", "", "Expected `float`, got `array` - at `$.views[0]`"),
        ("null", "", "Expected `array`, got `null` - at `$.views`"),
        ("[" + "1," * 55 + "1]", ', "horizon": 0', "Expected `int` >= 1 - at `$.horizon`"),
        ("[" + "1," * 55 + "1]", ', "horizon": 29', "Expected `int` <= 28 - at `$.horizon`"),
        ("[" + "1," * 55 + "1]", ', "horizon": 2.5', "Expected `int`, got `float` - at `$.horizon`"),
        ("[" + "1," * 55 + "1]", ', "horizon": true', "Expected `int`, got `bool` - at `$.horizon`"),
        ("[" + "1," * 55 + "1]", ', "days": 3', "Object contains unknown field `days`"),
    ],
)
def test_types_and_bounds(views: str, more: str, message: str) -> None:
    """What the types forbid is refused by the decoder, with its place."""
    with pytest.raises(msgspec.ValidationError) as caught:
        decode_json(views, more)
    assert str(caught.value) == message


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "0x10", "1_000", ".5"])
def test_no_such_number(number: str) -> None:
    """What is no finite JSON number never becomes one."""
    with pytest.raises(msgspec.DecodeError):
        decode_json("[" + f"{number}," * 55 + f"{number}]")


@pytest.mark.parametrize("number", ["0", "-0.0", "1e3", "1000000000", "5.0"])
def test_whole_numbers(number: str) -> None:
    """Whole numbers however written are fine, minus zero and the largest included."""
    found = decode_json("[" + f"{number}," * 55 + f"{number}]")
    assert list(validate(found, ASSETS)) == []
    assert np.isfinite(encode(found, ASSETS).views).all()


@pytest.mark.parametrize(
    ("last", "faults"),
    [
        ((), []),
        ((0.5,), [Fault(("views", 55), "expected a whole number of views, found 0.5")]),
        ((2.25, 3, 4.75), [
            Fault(("views", 53), "expected a whole number of views, found 2.25"),
            Fault(("views", 55), "expected a whole number of views, found 4.75"),
        ]),
        ((1234567.5,), [Fault(("views", 55), "expected a whole number of views, found 1234567.5")]),
    ],
)  # fmt: skip
def test_fractions(last: tuple[float, ...], faults: list[Fault]) -> None:
    """A fraction of a view is told with its day and its value."""
    assert list(validate(instance(*last), ASSETS)) == faults


def test_faults_are_bounded() -> None:
    """A series of nothing but fractions gives eight faults, the first ones."""
    faults = list(validate(Instance(views=[0.5] * 3660), ASSETS))
    assert [fault.loc for fault in faults] == [("views", day) for day in range(8)]


def test_example_is_weekly() -> None:
    """The example is eight weeks, each a little above the one before."""
    weeks = np.asarray(example(ASSETS).views).reshape(8, 7).sum(1)
    assert (np.diff(weeks) > 0).all()


def test_example_of_an_own_model(tmp_path: Path) -> None:
    """A model of a user's own series shows an example at that series' level; the public one's assets stay."""
    rows = [f"{date(2024, 1, 1) + timedelta(days=day)},{44 + day % 2}" for day in range(256)]
    own = load(write(tmp_path / "views.csv", rows)).assets
    assert own.level == 44.0
    views = np.asarray(example(own).views)
    assert views.mean() == pytest.approx(44, rel=0.02)
    assert list(validate(example(own), own)) == []
    assert msgspec.json.decode(msgspec.json.encode(own), type=Assets) == own
    assert msgspec.json.encode(ASSETS) == b'{"window":56,"horizon":28,"coverage":0.9}'
    assert max(example(Assets(level=1e9)).views) == 1e9
    assert set(example(Assets(level=0.0)).views) == {0.0}


def estimate(net: DenseNet, views: list[float]) -> list[float]:
    with torch.inference_mode():
        return net.estimate(torch.tensor([views]))[0].tolist()


def test_untrained_net_says_the_level_stays() -> None:
    """With zero weights every day is forecast as the mean of the last 28."""
    assert estimate(DenseNet(LINEAR, ASSETS), [999.0] * 28 + [10.0, 30.0] * 14) == [20.0] * 28


def test_linear_net_by_heart() -> None:
    """One weight of 1 on a past day makes the forecast that day's views: as today, as a week ago, half of both."""
    net = DenseNet(LINEAR, ASSETS)
    with torch.no_grad():
        net.last[55, 0] = 1.0
        net.last[49, 1] = 1.0
        net.last[[55, 49], 2] = 0.5
        net.bias[0, 3] = 0.5
        net.bias[0, 4] = -3.0
    views = [128.0] * 49 + [64.0] + [128.0] * 5 + [192.0]
    assert estimate(net, views)[:6] == [192.0, 64.0, 128.0, 192.0, 0.0, 128.0]


def test_nobody_watched() -> None:
    """Without a single view the level is one view, and the forecast is finite and not negative."""
    net = DenseNet(LINEAR, ASSETS)
    with torch.no_grad():
        net.last[55, 0] = 1.0
    assert estimate(net, [0.0] * 56)[:2] == [0.0, 1.0]


def test_scale_does_not_matter() -> None:
    """A channel with a power of two times the views gets that many times the forecast, to the bit."""
    torch.manual_seed(3)
    net = random_net(DenseConfig(layers=2, width=6, members=3))
    views = torch.randint(100, 1000, (4, 56)).float()
    with torch.inference_mode():
        assert torch.equal(net.estimate(views * 1024), net.estimate(views) * 1024)


def random_net(config: DenseConfig) -> DenseNet:
    net = DenseNet(config, ASSETS).eval()
    for parameter in (net.last, net.bias):
        torch.nn.init.normal_(parameter, std=0.05)
    return net


@pytest.mark.parametrize("layers", [0, 1, 2, 3])
def test_members_mean(layers: int) -> None:
    """The forecast is the mean of the members' forecasts; the members are not the same."""
    torch.manual_seed(1)
    net = random_net(DenseConfig(layers=layers, width=5, members=4))
    views = torch.randint(100, 1000, (6, 56)).float()
    with torch.inference_mode():
        members = net.members(views)
        assert members.shape == (6, 4, 28)
        assert members.std(1).min() > 1e-4
        mean = net.measure.answer(members.mean(1), views)
        torch.testing.assert_close(net.estimate(views), mean, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("layers", [1, 3])
def test_members_are_strangers(layers: int) -> None:
    """Each member is what a net of it alone would be: another's weights change nothing."""
    torch.manual_seed(2)
    config = DenseConfig(layers=layers, width=5, members=3)
    net, views = random_net(config), torch.randint(100, 1000, (6, 56)).float()
    with torch.inference_mode():
        before = net.members(views)
        net.hidden[0].weight[5:10] += 1.0
        for layer in net.hidden:
            if isinstance(layer, MemberLinear):
                layer.weight[5:10] += 1.0
                layer.weight[:5, 5:] += 7.0  # between members: not there
        after = net.members(views)
    assert torch.equal(before[:, [0, 2]], after[:, [0, 2]])
    assert not torch.equal(before[:, 1], after[:, 1])


def test_members_learn_apart() -> None:
    """No gradient reaches the weights between members."""
    layer = MemberLinear(3, 2, 4)
    layer(torch.ones(5, 6)).sum().backward()
    assert layer.weight.grad is not None
    assert torch.equal(layer.weight.grad != 0, layer.mask.bool())
    assert layer.mask.sum() == 3 * 2 * 4


@pytest.mark.parametrize("count", [1, 9, 19, 20, 39, 100, 199])
def test_calibration_by_heart(count: int) -> None:
    """Of n relative errors 1 %, 2 %, ... the ceil((n + 1) 0.95)-th smallest is the upper bound, and so from below."""
    net = DenseNet(LINEAR, ASSETS)
    views = torch.full((count, 56), 1000.0)
    percents = torch.arange(1, count + 1)[torch.randperm(count)].float()
    future = 1000 + 10 * percents[:, None].repeat(1, 28)
    net.calibrate(views, future, 0.9)
    rank = min(count, math.ceil((count + 1) * 0.95 - 1e-9))
    torch.testing.assert_close(net.upper_ratio, torch.full((28,), rank / 100), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(net.lower_ratio, torch.full((28,), (count + 1 - rank) / 100), rtol=1e-4, atol=1e-6)


def test_unknown_days_do_not_calibrate() -> None:
    """A day whose views are unknown is left out, and only for its own distance."""
    net = DenseNet(LINEAR, ASSETS)
    future = torch.full((30, 28), 1100.0)
    future[5:, 3] = 1500.0
    future[5:, 3][:25] = math.nan
    net.calibrate(torch.full((30, 56), 1000.0), future, 0.9)
    torch.testing.assert_close(net.upper_ratio, torch.full((28,), 0.1))


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9])
def test_coverage(coverage: float) -> None:
    """Over many draws the interval holds a new value at least as often as promised, and little more."""
    generator = torch.Generator().manual_seed(4)
    held = []
    for _ in range(40):
        net = DenseNet(LINEAR, ASSETS)
        views = torch.full((159 + 300, 56), 1000.0)
        future = 1000 * (1 + 0.2 * torch.randn((459, 28), generator=generator).clamp(-3, 3))
        net.calibrate(views[:159], future[:159], coverage)
        with torch.inference_mode():
            out = net(views[159:])
        held.append(((out["lower"] <= future[159:]) & (future[159:] <= out["upper"])).float().mean())
    assert coverage - 0.005 <= float(torch.stack(held).mean()) <= coverage + 0.03


def test_interval_bounds() -> None:
    """Bounds are relative to the forecast, and the lower is never negative."""
    net = DenseNet(LINEAR, ASSETS)
    net.lower_ratio[:] = torch.tensor([-0.5, -2.0] * 14)
    net.upper_ratio[:] = 0.25
    with torch.inference_mode():
        out = net(torch.full((1, 56), 1000.0))
    assert out["lower"][0, :2].tolist() == [500.0, 0.0]
    assert out["upper"][0, :2].tolist() == [1250.0, 1250.0]


# Data


def write(path: Path, rows: list[str], header: str = "date,views") -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


DATES = "YYYY-MM-DD, or another format, in every row the same (or --date-format)"
COLUMNS = "expected date and views, or --date-column and --views-column"


def days(count: int, first: date = date(2024, 1, 1)) -> list[str]:
    return [f"{first + timedelta(days=day)},{1000 + day % 7}" for day in range(count)]


def test_own_csv(tmp_path: Path) -> None:
    """A user's CSV loads in any order of rows and columns, the last fifth tests, the fifth before validates."""
    rows = [f"{row.split(',')[1]}, note ,{row.split(',')[0]}" for row in days(256)]
    path = write(tmp_path / "views.csv", rows[::-1], header="\ufeffviews,remark,date")
    found = load(path)
    assert found.views[:8].tolist() == [1000, 1001, 1002, 1003, 1004, 1005, 1006, 1000]
    assert (found.first_day, found.bounds) == (date(2024, 1, 1), (176, 216, 256))
    assert found.provenance.name == "views.csv"
    assert list(found.provenance.sha256) == ["views.csv"]
    past, future = found.windows("validation")
    assert past.shape == (40, 56)
    assert future.shape == (40, 28)
    assert past[0, -1] == found.views[175]
    assert future[0, 0] == found.views[176]


def test_no_split_sees_the_next(tmp_path: Path) -> None:
    """Days after a split are unknown to it: the last window knows one day, and no split overlaps another."""
    found = load(write(tmp_path / "views.csv", days(256)))
    for split in ("train", "validation", "test"):
        _, future = found.windows(split)
        assert np.isnan(future[-1]).tolist() == [False] + [True] * 27
        assert not np.isnan(future[:, 0]).any()
    assert len(found.windows("train", "validation")[0]) == sum(
        len(found.target_days(split)) for split in ("train", "validation")
    )


def test_judge_by_heart(tmp_path: Path) -> None:
    """The metric is the mean distance one day ahead; examples ask for one day and carry the whole window."""
    found = load(write(tmp_path / "views.csv", days(256)))
    requests, truths = zip(*found.examples("test"), strict=True)
    assert len(requests) == 40
    assert {(len(request.views), request.horizon) for request in requests} == {(56, 1)}
    predictions: list[Prediction] = [{"forecast": truth + 3} for truth in truths]
    predictions[0] = {"forecast": truths[0] - 43}
    assert found.judge(predictions, truths) == 4.0


@pytest.mark.parametrize(
    ("row", "text", "message"),
    [
        (5, "2024-01-32,5", "row 5: found date '2024-01-32', expected " + DATES),
        (5, "01/02/2024,5", "row 5: found date '01/02/2024', expected " + DATES),
        (5, ",5", "row 5: found date '', expected " + DATES),
        (5, "2024-01-01,5", "row 5: found 2024-01-01 a second time, expected one row per day"),
        (5, "2024-01-04,-5", "row 5: found views '-5', expected a whole number from 0 to 1000000000"),
        (5, "2024-01-04,many", "row 5: found views 'many', expected a whole number from 0 to 1000000000"),
        (5, "2024-01-04,1.5", "row 5: found views '1.5', expected a whole number from 0 to 1000000000"),
        (5, "2024-01-04,nan", "row 5: found views 'nan', expected a whole number from 0 to 1000000000"),
        (5, "2024-01-04", "row 5: found 1 cells, expected 2"),
        (5, "2024-01-04,1,305", "row 5: found 3 cells, expected 2"),
        (
            5,
            '2024-01-04,"1,305"',
            "row 5: found views '1,305', expected a whole number from 0 to 1000000000 "
            "(if thousands are grouped so: --thousands ,)",
        ),
        (201, '2024-07-18,"12', "row 201: found unexpected end of data, expected a whole row of CSV"),
        (5, "2024-01-04,1000000001", "row 5: found views 1000000001, expected a whole number from 0 to 1000000000"),
        (201, "2024-13-01,1", "row 201: found date '2024-13-01', expected " + DATES),
    ],
)
def test_bad_row(row: int, text: str, message: str, tmp_path: Path) -> None:
    """The first bad row is told with file, row, what was found and what was expected."""
    rows = days(200)
    rows[row - 2] = text
    path = write(tmp_path / "views.csv", rows)
    with pytest.raises(DataError) as caught:
        load(path)
    assert str(caught.value) == f"{path}, {message}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", f", row 1: found the columns none, {COLUMNS}"),
        (b"day,clicks,likes\n2024-01-01,1,2\n", f", row 1: found the columns 'day', 'clicks', 'likes', {COLUMNS}"),
        (b"date,views,Views\n2024-01-01,1,2\n", ", row 1: found two columns 'views', expected each name once"),
        (b"date,views\n", ": found no rows, expected one for each day"),
        (
            b"date,views\n2024-01-01,\xff\xfe\n",
            ": found bytes that are not utf-8, expected UTF-8, UTF-16 with its mark, or --encoding "
            "(Excel's CSV: --encoding cp1252)",
        ),
        ("\n".join(["date,views", *days(195)]).encode(), ": found 195 days, expected at least 196"),
        (
            "\n".join(["date,views", *days(100), *days(100, date(2024, 4, 11))]).encode(),
            ": found no views for 2024-04-10 (1 of 201 days are missing), expected every day between the first and the "
            "last, or --gaps zero or --gaps interpolate",
        ),
    ],
    ids=["empty", "columns", "twice", "header only", "not UTF-8", "too short", "gap"],
)
def test_bad_file(content: bytes, message: str, tmp_path: Path) -> None:
    """A file that is no such table, too short or with a gap gets one clear line."""
    path = tmp_path / "views.csv"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        load(path)
    assert str(caught.value) == f"{path}{message}"


def test_monstrous_field(tmp_path: Path) -> None:
    """A field beyond the csv module's limit is bad data like any other, not a traceback."""
    path = write(tmp_path / "views.csv", [*days(200), "x" * 200_000 + ",1"])
    with pytest.raises(DataError, match="row"):
        load(path)


def test_shortest_series(tmp_path: Path) -> None:
    """The least number of days gives every split something to do; a folder or a missing file is refused."""
    found = load(write(tmp_path / "views.csv", days(MIN_DAYS)))
    assert [len(found.target_days(split)) for split in ("train", "validation", "test")] == [84, 28, 28]
    for path in (tmp_path, tmp_path / "nothing.csv"):
        with pytest.raises(DataError, match="expected a readable file"):
            load(path)


def test_public_series_bounds() -> None:
    """The lecture's cut: test is the year 2021, validation the half year before."""
    assert (date(2020, 7, 1), date(2021, 1, 1), date(2022, 1, 1)) == data.OTEXTS_BOUNDS
    assert FORECAST.family == "viewcount"


def test_learner(tmp_path: Path) -> None:
    """An epoch shows every training window once; loss and score of a net that says the level stays are by heart."""
    rows = [f"{date(2024, 1, 1) + timedelta(days=day)},{100 if day % 2 else 300}" for day in range(256)]
    learner = ViewCountLearner(RECIPES[0], write(tmp_path / "views.csv", rows), 0)
    batches = list(learner.batches(np.random.default_rng(0)))
    assert len(batches) == learner.batch_count() == 2
    assert sum(len(views) for views, _, _ in batches) == 176 - 56
    # The level is 200, every true day 100 away: a relative error e of a half, by Huber e - 0.1, for eight members.
    assert [learner.loss(batch).item() for batch in batches] == pytest.approx([3.2, 3.2])
    assert [learner.score(split) for split in ("train", "validation", "test")] == [100.0] * 3
    assert learner.finish(tmp_path) == {
        "interval": {"nominal": 0.9, "test_coverage_one_day": 1.0, "test_coverage_all_days": 1.0},
        "forecast": {"real": [300, 100] * 20, "estimated": [200] * 40},
    }
    again = learner.pooled()
    assert len(again.splits["train"][0]) == 216 - 56
    assert torch.equal(again.net.upper_ratio, learner.net.upper_ratio)
