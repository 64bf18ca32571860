"""The command line over a shipped model: run, resume, status, verify, plan, and how each says no."""

import json
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from models.paths import REPOSITORY
from service.scoring.commands import EXITS, HELP, ONLY_ERRORS, find_spec, how_to_go_on
from service.scoring.execution.destination import work_folder
from service.scoring.execution.resume_command import interpreter, resuming
from service.scoring.inputs.interfaces import PartSpec
from service.scoring.inputs.jsonl_source import JsonlSource
from tests.service.scoring import hostile

ROWS = 60
Call = Callable[..., Result]


@pytest.fixture
def call(tmp_path: Path, stocked: Callable[..., Call]) -> Call:
    """Calls a command where the tagger is in the store, and ``in.jsonl`` holds sentences, one of which is none."""
    lines = [json.dumps({"tokens": ["a", "dog", "saw"] * (row % 5 + 1)}) for row in range(ROWS)]
    lines[7] = '{"tokens": ["a", 5]}'
    (tmp_path / "in.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return stocked("tagging")


def started(call: Call, folder: Path, *options: Any) -> Result:
    """Return the usual job."""
    words = ("run", "tagging", folder / "in.jsonl", folder / "out.parquet", "--part-rows", 20, "--workers", 1)
    return call(*words, *options)


def test_run_and_look(call: Call, tmp_path: Path) -> None:
    """A job is run, found done, looked at and verified; whatever changed afterwards is named."""
    out = tmp_path / "out.parquet"
    first = started(call, tmp_path)
    assert (first.exit_code, first.stdout) == (0, f"60 rows, 1 error rows: {out}\n")
    assert started(call, tmp_path).stdout == f"nothing to do, this job is done: 60 rows, 1 error rows: {out}\n"
    assert call("resume", out).stdout.startswith("nothing to do")
    assert call("status", out).stdout == "done: 60 of 60 rows, 3 of 3 parts, 1 error rows\n"
    assert json.loads(call("status", out, "--json").stdout)["state"] == "done"
    whole = call("verify", out)
    assert (whole.exit_code, whole.stdout.count(": equal: ")) == (0, 3)
    for changed, name in ((out, "output"), (tmp_path / "in.jsonl", "input")):
        content = changed.read_bytes()
        changed.write_bytes(content[:-3] + b"x" + content[-2:])
        found = call("verify", out)
        assert (found.exit_code, f"{name}: DIFFERS" in found.stdout, found.stdout.count("DIFFERS")) == (1, True, 1)
        changed.write_bytes(content)
    manifest = tmp_path / "out.parquet.manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"rows": 60', b'"rows": 61'))
    assert call("verify", out).exit_code == 1


def test_pause_and_resume(call: Call, tmp_path: Path) -> None:
    """More errors than allowed: exit 3 and how to go on; status says the same; resume ends it."""
    out = tmp_path / "out.parquet"
    stopped = started(call, tmp_path, "--max-errors", 0)
    how = f"go on with: {resuming(out)}\n"
    assert stopped.exit_code == 3
    assert stopped.stderr == "row 8: invalid_request: tokens[1]: expected str, got int\n" + (
        f"lectern: 1 error rows in 20 rows, more than --max-errors 0; {how}"
    )
    looked = call("status", out)
    assert looked.stdout == f"paused: 20 of 60 rows, 1 of 3 parts, 1 error rows\nnobody works on it; {how}"
    assert call("resume", out, "--max-errors", 1, "--workers", 1).exit_code == 0
    assert call("verify", out).exit_code == 0


def test_paused_before_it_began(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C, or a full disk, while rows are counted: there is nothing to resume, and no command that would."""
    out, sentence = tmp_path / "out.parquet", "nothing is begun yet: give the same command again\n"

    def ask_to_pause(source: JsonlSource) -> Iterator[PartSpec]:
        os.kill(os.getpid(), signal.SIGINT)
        return cuts(source)

    cuts = JsonlSource.cuts
    with monkeypatch.context() as patch:
        patch.setattr(JsonlSource, "cuts", ask_to_pause)
        stopped = started(call, tmp_path)
    assert (stopped.exit_code, stopped.stderr) == (130, f"lectern: paused; {sentence}")
    with monkeypatch.context() as patch:
        patch.setattr("service.scoring.execution.ledger.SCHEMA", "PRAGMA max_page_count = 1; CREATE TABLE a (b);")
        full = started(call, tmp_path)
    assert (full.exit_code, full.stderr.endswith(sentence)) == (6, True)
    assert call("resume", out).exit_code == 1
    assert started(call, tmp_path).exit_code == 0


def test_work_folder_elsewhere(call: Call, tmp_path: Path) -> None:
    """A job may be worked on in another folder; the command that resumes says so."""
    work, out = tmp_path / "work", tmp_path / "out.parquet"
    stopped = started(call, tmp_path, "--work", work, "--max-errors", 0)
    assert f"resume {out} --work {work}" in stopped.stderr
    assert call("status", out).exit_code == 1
    assert call("resume", out, "--work", work, "--workers", 1).exit_code == 0
    assert not work.exists()


def test_plan(call: Call, tmp_path: Path) -> None:
    """Rows, parts and a time; nothing is written."""
    before = sorted(tmp_path.iterdir())
    found = call("plan", "tagging", tmp_path / "in.jsonl", "--part-rows", 20, "--workers", 2)
    assert found.exit_code == 0
    assert found.stdout.startswith("60 rows in 3 parts; about 0.")
    assert found.stdout.endswith(" s with 2 workers\n")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (
            ["run", "no-such", "in.jsonl", "out.parquet"],
            1,
            "model no-such:latest is not in the model store (tagging); put it there",
        ),
        (["run", "tagging", "none.jsonl", "out.parquet"], 1, "expected"),
        (["run", "tagging", "in.jsonl", "out.xyz"], 1, ".csv .parquet .arrow, or --output-format"),
        (["run", "tagging", "in.jsonl", "out.parquet", "--column", "x"], 2, "expected FIELD=NAME"),
        (["run", "tagging", "in.jsonl", "out.parquet", "--input-format", "nope"], 2, "'nope' is not one of"),
        (["run", "tagging", "in.jsonl", "out.parquet", "--output-format", "nope"], 2, "'nope' is not one of"),
        (["run", "tagging", "in.jsonl", "none/out.parquet"], 1, "there is no folder"),
        (["run", "tagging", "in.jsonl", "out.parquet", "--work", "none/work.d"], 1, "none to write to; make it first"),
        (["run", "tagging", "in.jsonl", "in.jsonl", "--overwrite"], 1, "is the input itself"),
        (["run", "tagging", "in.jsonl", "link.jsonl", "--overwrite"], 1, "is the input itself"),
        (["run", "tagging", "in.jsonl", "mine.csv"], 1, "mine.csv.manifest.json is not a manifest"),
        (["run", "tagging", "in.jsonl", f"{'x' * 250}.parquet"], 1, "file name too long"),
        (["resume", "memory://out"], 1, "is not on this machine: the job needs --work FOLDER"),
        (["run", "tagging", "in.jsonl", "no://out", "--work", "w", "--output-format", "csv"], 1, "Protocol not known"),
        (["run", "tagging", "in.jsonl"], 2, "Missing argument 'OUT'"),
        (["run", "tagging", "in.jsonl", "out.parquet", "--workers", "0"], 2, "--workers"),
        (["resume", "out.parquet"], 1, "there is no unfinished job of"),
        (["status", "out.parquet"], 1, "there is no job of"),
        (["verify", "out.parquet"], 1, "there is no"),
    ],
)
def test_refusals(words: list[str], code: int, sentence: str, call: Call, tmp_path: Path) -> None:
    """What cannot be done is said in a sentence, before anything is written."""
    (tmp_path / "link.jsonl").symlink_to("in.jsonl")
    (tmp_path / "mine.csv.manifest.json").write_text('{"of": "somebody else"}')
    before = sorted(path for path in tmp_path.iterdir() if path.name != "store")
    found = call(*(tmp_path / word if "." in word else word for word in words))
    assert found.exit_code == code
    assert sentence in found.stderr
    assert sorted(path for path in tmp_path.iterdir() if path.name != "store") == before


@pytest.mark.parametrize("address", ["s3://bucket/in.jsonl", "nonsense://in.jsonl", "http://127.0.0.1:1/in.jsonl"])
def test_addresses_that_cannot_be_read(
    address: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a file system's own error is, it is one sentence, and nothing is left behind."""

    class OwnError(Exception):
        """As botocore's: no OSError."""

    def refuse(_: str) -> None:
        raise OwnError("no credentials")

    if address.startswith("s3"):
        monkeypatch.setattr("fsspec.core.url_to_fs", refuse)
    found = call("run", "tagging", address, tmp_path / "out.jsonl")
    assert found.exit_code == 1
    assert found.stderr.startswith(f"lectern: {address}: found ")
    assert not (tmp_path / ".out.jsonl.job").exists()


def test_model_replaced(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job whose model is another one by now cannot go on, and yet nobody is told that nothing is begun."""
    out = tmp_path / "out.parquet"
    started(call, tmp_path, "--max-errors", 0)
    spec = find_spec(out, work_folder(out, None))
    assert spec is not None
    spec = spec.replace(b'"manifest_digest":"', b'"manifest_digest":"0')
    monkeypatch.setattr("service.scoring.commands.find_spec", lambda *_: spec)
    resumed = call("resume", out)
    assert (resumed.exit_code, resumed.stderr) == (
        1,
        "lectern: tagging:1.0.0: not the model that the job was begun with\n",
    )
    assert how_to_go_on(out, None, is_bound=False) == f"; go on with: {resuming(out)}"


def test_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command that resumes runs where it is pasted: with the Python that said it, and a path of any letters."""
    odd = tmp_path / "sp ace" / 'it\'s "ünï".csv'
    monkeypatch.delenv("BENTOML_HOME", raising=False)
    words = shlex.split(resuming(odd, tmp_path / "a work"))
    assert words == [interpreter(), *["-m", "service.scoring", "resume"], str(odd), "--work", str(tmp_path / "a work")]
    monkeypatch.setenv("BENTOML_HOME", str(Path.cwd() / "a store"))
    assert shlex.split(resuming(odd))[0] == "BENTOML_HOME=a store"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Path(interpreter()).absolute() == Path(sys.executable)
    (tmp_path / "python").touch(mode=0o755)
    assert Path(interpreter()).absolute() == Path(sys.executable)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    assert interpreter() == "python"
    monkeypatch.setenv("PATH", "")
    monkeypatch.chdir(Path(sys.executable).parent)
    assert interpreter() == Path(sys.executable).name


def test_file_address(call: Call, tmp_path: Path) -> None:
    """An output may be named as an address of this machine, as an input may."""
    out = tmp_path / "out.jsonl"
    assert call("run", "tagging", f"file://{tmp_path}/in.jsonl", f"file://{out}", "--workers", 1).exit_code == 0
    assert len(out.read_bytes().splitlines()) == ROWS


def test_quiet_and_lines(call: Call, tmp_path: Path) -> None:
    """Quiet says nothing; for a scheduler the last line says how it ended."""
    refused = started(call, tmp_path, "--progress", "json", "--max-errors", 0)
    assert json.loads(refused.stderr.splitlines()[-1]) == {
        "event": "failed",
        "code": "too_many_errors",
        "reason": "1 error rows in 20 rows, more than --max-errors 0",
    }
    quiet = started(call, tmp_path, "--quiet")
    assert (quiet.exit_code, quiet.output) == (0, "")


def test_every_row_an_error_row(call: Call, tmp_path: Path) -> None:
    """A job of nothing but error rows is done, and says why on the terminal and that it is so by its exit status."""
    (tmp_path / "in.jsonl").write_text('{"tokens": 5}\n' * ROWS)
    found = started(call, tmp_path)
    assert (found.exit_code, found.stdout.partition(":")[0]) == (ONLY_ERRORS, "60 rows, 60 error rows")
    assert len(found.stderr.splitlines()) == 3
    assert found.stderr.startswith("row 1: invalid_request: tokens: ")
    assert started(call, tmp_path).exit_code == ONLY_ERRORS
    told = call("run", "tagging", tmp_path / "in.jsonl", tmp_path / "out.csv", "--progress", "json")
    assert (told.exit_code, "tokens" in told.stderr) == (ONLY_ERRORS, False)


@pytest.mark.parametrize(
    ("option", "code", "words"),
    [
        ("--max-error-rate=0.01", 3, "1 error rows in 20 rows, more than --max-error-rate 0.01 of 60"),
        ("--max-error-rate=0.02", 0, ""),
        (
            "--max-rows=59",
            8,
            "more than 59 rows (--max-rows); nothing is begun yet: raise the bound and give the command again",
        ),
        ("--max-rows=60", 0, ""),
        ("--max-bytes=10", 8, "more than --max-bytes 10"),
        ("--max-bytes=1000000", 0, ""),
    ],
)
def test_bounds_of_a_job(option: str, code: int, words: str, call: Call, tmp_path: Path) -> None:
    """A job with more error rows, rows or bytes than it may have ends with a status of its own, and can go on later."""
    found = started(call, tmp_path, option)
    assert (found.exit_code, words in found.stderr) == (code, True)
    assert (tmp_path / "out.parquet").exists() == (code == 0)
    assert started(call, tmp_path).exit_code == 0


def test_too_many_lines_are_not_read(call: Call, tmp_path: Path) -> None:
    """Lines above --max-rows end the reading for their keys: what is damaged far behind them is never come to."""
    path = hostile.zstd(tmp_path / "in.jsonl.zst", b"\n" * 2**20, 16)
    path.write_bytes(path.read_bytes()[:-8])
    words = ("run", "tagging", path, tmp_path / "out.jsonl", "--workers", 1)
    assert "cut off zstd" in call(*words).stderr
    found = call(*words, "--max-rows", 1000)
    assert (found.exit_code, "the input has more than 1000 rows" in found.stderr) == (8, True)


def test_no_memory_is_one_line(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An input that takes more memory than there is to be cut into parts is told so."""
    monkeypatch.setattr(JsonlSource, "cuts", lambda _: bytes(2**62))
    found = started(call, tmp_path)
    assert (found.exit_code, "not enough memory" in found.stderr) == (1, True)


def test_exit_statuses_are_documented() -> None:
    """The help and the documentation name every exit status."""
    table = (REPOSITORY / "docs" / "operations.md").read_text()
    for code in (ONLY_ERRORS, *EXITS.values()):
        assert re.search(rf"\b{code}\b", HELP)
        assert f"\n| {code} |" in table


def test_sentences_by_any_number_of_workers(call: Call, tmp_path: Path) -> None:
    """Plain sentences and strange ones: the same bytes from one worker and from two."""
    plain, rest = "", "\t_" * 8
    for row in range(200):
        words = ["a", "dog", "saw", "\x07" if row % 50 == 7 else "Ökonomen"] * (row % 5 + 1)
        plain += f"# sent_id = {row}\n" + "".join(f"{n}\t{word}{rest}\n" for n, word in enumerate(words, 1)) + "\n"
    strange = f"1\ta\rb{rest}\n\n1-2\tab{rest}\n1\ta{rest}\n2\tb{rest}\n\n2\tb{rest}\n\n1\ta{rest}"
    (tmp_path / "in.conllu").write_bytes(plain.encode() + b"1\t\xff\n\n" + strange.encode())
    for workers in (1, 2):
        out = tmp_path / f"{workers}.parquet"
        found = call("run", "tagging", tmp_path / "in.conllu", out, "--part-rows", 30, "--workers", workers)
        assert (found.exit_code, found.stdout) == (0, f"205 rows, 7 error rows: {out}\n")
    assert (tmp_path / "1.parquet").read_bytes() == (tmp_path / "2.parquet").read_bytes()
