"""Inputs at any address: the rows, the cuts and the bytes of a local file."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import fsspec
import httpx
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.errors import DataError, InputChanged

Run = Callable[..., Any]
BUCKET = "lectern-rows"


def write_all(root: str, local: Path, instances: list[Any], pictures: list[Any]) -> dict[str, Path]:
    """Return one input of each kind, here and there."""
    lines = b"".join(msgspec.json.encode(one) + b"\n" for one in instances)
    (local / "rows.jsonl").write_bytes(lines)
    (local / "rows.csv").write_bytes(b"id,text\n" + b"".join(b'%d,"so, %d"\n' % (n, n) for n in range(3000)))
    pq.write_table(pa.table({"text": [f"so {n}" for n in range(3000)]}), local / "rows.parquet", row_group_size=700)
    import gzip

    (local / "rows.jsonl.gz").write_bytes(gzip.compress(lines))
    (local / "pictures").mkdir()
    for number, one in enumerate(pictures):
        (local / "pictures" / f"{number}.png").write_bytes(one)
    found = {one.name: one for one in local.iterdir()}
    for path in local.rglob("*"):
        if path.is_file():
            with fsspec.open(f"{root}/{path.relative_to(local)}", "wb") as file:
                file.write(path.read_bytes())
    return found


def compare(root: str, local: Path, run: Run, draw: Any) -> None:
    """Every output and digest is that of the local input, and a change is found."""
    pictures = [one.image for one in draw("image", 30) if isinstance(one.image, bytes)]
    for name, path in write_all(root, local, draw("tagging", 40), pictures).items():
        model, end = ("image", "/") if name == "pictures" else ("tagging", "")
        here = run(model, path, part_rows=300, to="jsonl")
        there = run(model, f"{root}/{name}{end}", part_rows=300, to="jsonl")
        assert there.output == here.output, name
        assert there.scorer.source.digest == here.scorer.source.digest
        assert there.output.count(b'"prediction":{') >= len(pictures)
    scorer = run("tagging", f"{root}/rows.csv", part_rows=1000).scorer
    cuts = [*scorer.source.cuts()]
    with fsspec.open(f"{root}/rows.csv", "wb") as file:
        file.write((local / "rows.csv").read_bytes().replace(b"so, 1500", b"so, 1501"))
    source = type(scorer.source)(scorer.spec)
    assert source.read(cuts[0]).count == 1000
    with pytest.raises(InputChanged):
        source.read(cuts[1])
    with pytest.raises(DataError, match="found nothing"):
        run("tagging", f"{root}/none.jsonl")


def test_memory(run: Run, draw: Any, tmp_path: Path) -> None:
    """A file system of fsspec's own."""
    compare("memory://rows", tmp_path, run, draw)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A process that speaks S3, with a bucket."""
    log = tmp_path_factory.mktemp("store") / "log"
    program = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    # What it is started with does not see the client's own libraries.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    with log.open("wb") as said, subprocess.Popen(program, stdout=said, stderr=said, env=environment) as process:
        try:
            until = monotonic() + 60
            while "http://" not in (text := log.read_text()):
                assert monotonic() < until, text
                assert process.poll() is None, text
                sleep(0.05)
            address = "http://" + text.split("http://", 1)[1].split()[0]
            assert httpx.put(f"{address}/{BUCKET}").status_code == 200
            for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
                monkeypatch.setenv(name, "testing")
            monkeypatch.setenv("AWS_ENDPOINT_URL", address)
            # A client remembers where an earlier test's process was.
            fsspec.get_filesystem_class("s3").clear_instance_cache()
            yield f"s3://{BUCKET}/rows"
        finally:
            process.terminate()


@pytest.mark.e2e
def test_s3(store: str, run: Run, draw: Any, tmp_path: Path) -> None:
    """A real server of S3's protocol, asked by the library that asks the real one."""
    compare(store, tmp_path, run, draw)


@pytest.mark.e2e
def test_s3_output(
    store: str, tmp_path: Path, shipped_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command, from and to a store: the very bytes of the local one; killed, resumed, asked about and verified."""
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "home"))
    install = [sys.executable, "-m", "export", "install", str(shipped_folder("tagging"))]
    subprocess.run(install, check=True, stdout=subprocess.DEVNULL)
    lines = b"".join(b'{"id":%d,"text":"I saw %d of them"}\n' % (row, row) for row in range(2000))
    (tmp_path / "in.jsonl").write_bytes(lines)
    with fsspec.open(f"{store}/in.jsonl", "wb") as file:
        file.write(lines)
    program = [sys.executable, "-m", "service.scoring"]
    options = ["--part-rows", "100", "--workers", "2", "--quiet"]
    subprocess.run(
        [*program, "run", "tagging", str(tmp_path / "in.jsonl"), str(tmp_path / "out.parquet"), *options], check=True
    )
    out, work = f"{store}/out.parquet", str(tmp_path / "work")
    command = [*program, "run", "tagging", f"{store}/in.jsonl", out, *options, "--work", work]
    with subprocess.Popen(command) as killed:
        until = monotonic() + 60
        while not [*Path(work).glob("parts/*.*.*.*")] and monotonic() < until:
            sleep(0.01)
        killed.kill()
    files = fsspec.filesystem("s3", use_listings_cache=False)
    assert not files.exists(out)
    subprocess.run([*program, "resume", out, "--work", work, "--quiet"], check=True)
    assert files.cat_file(out) == (tmp_path / "out.parquet").read_bytes()
    for words in (["verify", out], ["status", out]):
        found = subprocess.run([*program, *words], check=True, capture_output=True, text=True).stdout
        assert "DIFFERS" not in found
    assert "done: 2,000 of 2,000 rows" in found
    assert not Path(work).exists()
