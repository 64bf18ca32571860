"""Tables of days and views, as people have them, scored without editing: the same reader as in training."""

import gzip
import json
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from models.errors import DataError, InputChanged
from models.viewcount.schema import Instance
from service.scoring import commands
from service.scoring.inputs.registry import complete
from service.scoring.inputs.series_source import SeriesSource
from service.scoring.spec import InputOptions, make_spec
from tests.models import view_tables as made

Run = Callable[..., Any]
ROWS = ",".join(["10"] * 56)
Alone = Callable[[str, list[Any]], list[bytes]]


@pytest.mark.parametrize("name", made.EXPORTS)
def test_exports(name: str, run: Run, alone: Alone, prediction: Callable[[bytes], bytes]) -> None:
    """What each tool exports is one row: the forecast after its last day, as the service gives it."""
    write, options = made.EXPORTS[name]
    shared = {key: options[key] for key in options if key in InputOptions.__struct_fields__}
    job = run("viewcount", name, write(100), series={k: v for k, v in options.items() if k not in shared}, **shared)
    assert job.scorer.spec.input_format == "series"
    (line,) = job.output.splitlines()
    assert json.loads(line)["last_day"] == "2024-04-09"
    asked = Instance(views=[float(seen) for seen in made.views(100)[-56:]])
    assert prediction(line) == alone("viewcount", [asked])[0]


def test_every_day(run: Run, alone: Alone, prediction: Callable[[bytes], bytes]) -> None:
    """Asked so, each day with a whole window is a row, whatever the parts; one by one they are the same."""
    job = run("viewcount", "views.csv", made.youtube_totals(100), every_day=True, part_rows=7)
    lines = job.output.splitlines()
    first = date(2024, 1, 1)
    assert [json.loads(line)["last_day"] for line in lines] == [str(first + timedelta(days=d)) for d in range(55, 100)]
    views = [float(seen) for seen in made.views(100)]
    asked = [Instance(views=views[end - 56 : end]) for end in range(56, 101)]
    assert [*map(prediction, lines)] == alone("viewcount", asked)
    for more in ({"alone": True}, {"one_by_one": True}, {"part_rows": 100}):
        again = run("viewcount", "views.csv", made.youtube_totals(100), **{"every_day": True, "part_rows": 7, **more})
        assert again.output == job.output


def test_horizon(run: Run, alone: Alone, prediction: Callable[[bytes], bytes]) -> None:
    """As many days are forecast as asked, of each window, as the service forecasts them."""
    views = [float(seen) for seen in made.views(60)]
    for horizon in (1, 14, 28):
        job = run("viewcount", "views.csv", made.youtube_totals(60), series={"horizon": str(horizon)}, every_day=True)
        asked = [Instance(views=views[end - 56 : end], horizon=horizon) for end in range(56, 61)]
        assert [*map(prediction, job.output.splitlines())] == alone("viewcount", asked)


@pytest.mark.parametrize(
    ("name", "content", "model", "options", "option"),
    [
        ("a.jsonl", b'{"views": [1]}\n', "viewcount", {"every_day": True}, "--every-day"),
        ("a.csv", b'views\n"[1,2]"\n', "viewcount", {"every_day": True}, "--every-day"),
        ("a.conllu", b"", "tagging", {"series": {"date_column": "Tag"}}, "--date-column"),
    ],
)
def test_options_of_a_series_for_rows(
    name: str, content: bytes, model: str, options: Any, option: str, run: Run
) -> None:
    """What is said of a series is refused beside an input that is none, instead of passed over."""
    with pytest.raises(DataError, match=f"found no series that {model}:.* reads, expected one, or no {option}"):
        run(model, name, content, **options)


def test_notes(stocked: Any, tmp_path: Path) -> None:
    """What was made of a series is told in the last lines, in the last line of JSON and in the manifest."""
    call, path = stocked("viewcount"), tmp_path / "views.csv"
    content = made.youtube_table(80).splitlines(keepends=True)
    path.write_bytes(b"".join(content[:30] + content[33:]))
    notes = ["row 2: a row of totals, passed over", "3 of 80 days were missing, the first 2024-01-29; --gaps zero"]
    words = ("run", "viewcount", path, tmp_path / "a.jsonl", "--gaps", "zero", "--workers", 1)
    done = call(*words)
    assert (done.exit_code, done.stdout) == (0, f"1 rows, 0 error rows: {tmp_path / 'a.jsonl'}\n")
    assert done.stderr.splitlines() == notes
    manifest = json.loads((tmp_path / "a.jsonl.manifest.json").read_bytes())
    assert (manifest["notes"], manifest["spec"]["options"]["series"]) == (notes, {"gaps": "zero"})
    assert call("verify", tmp_path / "a.jsonl").exit_code == 0
    again = call(*words, "--progress", "json")
    assert json.loads(again.stderr.splitlines()[-1])["notes"] == notes


def test_resumed(stocked: Any, tmp_path: Path) -> None:
    """A job with a horizon that stops in the middle goes on to the bytes of one that did not."""
    call, path = stocked("viewcount"), tmp_path / "views.csv"
    path.write_bytes(made.youtube_table(100))
    said = ("--horizon", 14, "--every-day", "--part-rows", 7, "--workers", 1)
    whole, broken = tmp_path / "whole.jsonl", tmp_path / "broken.jsonl"
    assert call("run", "viewcount", path, whole, *said).exit_code == 0
    assert call("run", "viewcount", path, broken, *said, "--max-bytes", 9000).exit_code == 8
    assert not broken.exists()
    assert call("resume", broken, "--workers", 1).exit_code == 0
    assert broken.read_bytes() == whole.read_bytes()
    assert len(json.loads(broken.read_bytes().splitlines()[0])["prediction"]["forecast"]) == 14
    manifest = json.loads((tmp_path / "broken.jsonl.manifest.json").read_bytes())
    assert manifest["notes"] == ["row 2: a row of totals, passed over"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            'date,views\n2024-01-01,1\n2024-01-02,"12',
            ", row 3: found unexpected end of data, expected a whole row of CSV",
        ),
        ("date,views,views\n2024-01-01,1,2\n", ", row 1: found two columns 'views', expected each name once"),
        (f"views_1,views_1\n{ROWS}\n", ": found the same name in columns 1 and 2, expected each name once"),
    ],
)
def test_refused_by_the_command(content: str, message: str, stocked: Any, tmp_path: Path) -> None:
    """Torn quotes and names given twice end a job by file and row, with status 1, in one line, and leave nothing."""
    call, path = stocked("viewcount"), tmp_path / "in.csv"
    path.write_text(content)
    done = call("run", "viewcount", path, tmp_path / "out.jsonl", "--workers", 1)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith(f"lectern: {path}{message}")
    assert done.stderr.count("\n") == 1
    assert [one.name for one in tmp_path.iterdir() if "out" in one.name] == []


@pytest.mark.parametrize("ending", ["csv", "csv.gz"])
def test_to_a_table(ending: str, run: Run) -> None:
    """A series scored to Parquet has its last day beside the forecast."""
    content = made.youtube_totals(60)
    job = run(
        "viewcount", f"views.{ending}", gzip.compress(content) if ending.endswith("gz") else content, to="parquet"
    )
    assert job.table.column_names[0] == "last_day"
    assert job.table["last_day"].to_pylist() == ["2024-02-29"]
    assert job.codes == [None]


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.csv", f'date,views\n2024-01-01,"[{ROWS}]"\n', "csv"),
        ("a.csv", f"date,{','.join(f'views_{day}' for day in range(1, 57))}\n2024-01-01,{ROWS}\n", "csv"),
        ("a.json", f'{{"views": [{ROWS}]}}\n{{"views": [{ROWS}]}}\n', "jsonl"),
        ("a.json", f'{{"date": "2024-01-01", "views": [{ROWS}]}}\n', "jsonl"),
    ],
)
def test_rows_stay_rows(name: str, content: str, kind: str, run: Run) -> None:
    """Inputs whose rows are whole requests are scored row by row, also beside a date."""
    job = run("viewcount", name, content.encode())
    assert job.scorer.spec.input_format == kind
    assert set(job.codes) == {None}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (made.youtube_totals(55), "found 55 days, expected at least 56"),
        (b"date,views\n2023-12-01,2,305\n", "row 2: found 3 cells, expected 2"),
        (
            made.universal_analytics(100),
            "row 12: found views that cannot be read, expected a whole number from 0 to 1000000000 "
            "(if thousands are grouped so: --thousands ,)",
        ),
        (
            b'date,views\n2024-01-01,1\n2024-01-02,"12',
            "row 3: found unexpected end of data, expected a whole row of CSV",
        ),
        (b'date,views\n2024-01-01,"1\n2024-01-02,12\n', "row 2: found unexpected end of data"),
        (b"date,views\nAnna 7,5\n", "row 2: found date that cannot be read, expected YYYY-MM-DD"),
    ],
)
def test_refused(content: bytes, message: str, run: Run) -> None:
    """What training refuses, scoring refuses, but without what a cell holds; and a series that is too short."""
    with pytest.raises(DataError) as caught:
        run("viewcount", "views.csv", content)
    assert message in str(caught.value)


def test_no_series_for_others(run: Run) -> None:
    """A model of something else reads no series."""
    with pytest.raises(DataError, match=r"found a series, expected another format: image:.* reads none"):
        run("image", "Book1.txt", made.excel_unicode_text(60))


def test_a_changed_series(shipped_session: Any, tmp_path: Path) -> None:
    """A worker that finds another file than was cut says so."""
    path = tmp_path / "views.csv"
    path.write_bytes(made.youtube_totals(60))
    spec = complete(make_spec(shipped_session("viewcount").manifest, str(path), "out.jsonl"))
    (cut,) = SeriesSource(spec).cuts()
    assert SeriesSource(spec).read(cut).numbers("views").shape == (1, 56)
    assert SeriesSource(spec).read(cut).numbers("other") is None
    for content in (made.youtube_totals(61), b"date,views\n"):
        path.write_bytes(content)
        with pytest.raises(InputChanged):
            SeriesSource(spec).read(cut)


def test_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said of a series on the command line decides the job's bytes; other options are refused."""
    asked: dict[str, Any] = {}

    def ask(model: str, source: str, target: str, options: Any, **_: Any) -> None:
        asked["options"] = options
        raise DataError(source, found="enough", expected="no more")

    monkeypatch.setattr(commands, "ask", ask)
    given = ["--date-column", "Tag", "--thousands", ".", "--gaps", "zero", "--every-day", "--delimiter", ";"]
    result = CliRunner().invoke(commands.main, ["plan", "viewcount", "in.csv", "--horizon", "14", *given])
    assert "found enough" in result.output
    assert asked["options"].series == {"date_column": "Tag", "thousands": ".", "gaps": "zero", "horizon": "14"}
    assert asked["options"].every_day
    result = CliRunner().invoke(commands.main, ["plan", "viewcount", "in.csv", "--gaps", "guess"])
    assert (result.exit_code, "'guess' is not one of" in result.output) == (2, True)
    result = CliRunner().invoke(commands.main, ["plan", "viewcount", "in.csv", "--horizon", "29"])
    assert (result.exit_code, "29 is not in the range 1<=x<=28" in result.output) == (2, True)


def test_windows_are_not_copied(run: Run) -> None:
    """Many windows of a series share its memory."""
    job = run("viewcount", "views.csv", made.youtube_totals(3000), every_day=True)
    source = SeriesSource(job.scorer.spec)
    (cut,) = source.cuts()
    windows = source.read(cut).numbers("views")
    assert isinstance(windows, np.ndarray)
    assert (windows.shape, windows.base is not None) == ((2945, 56), True)
