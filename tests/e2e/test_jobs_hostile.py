"""Uploads that are small and say that they are large, in their real sizes, beside another caller's job."""

import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.e2e.job_steps import scorers, submit, wait, write_inputs
from tests.service.scoring import hostile

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]
MEGABYTE, MOST_BYTES = 2**20, 10**9
# How long a hostile upload may keep its slot, from its start to its end.
MOST_SECONDS = 120
ENDED = ("done", "failed", "cancelled")
# What is made, and with which model and format it is uploaded.
INPUTS: dict[str, tuple[Callable[[Path], Path], str, str]] = {
    "a list of 50 million zeros": (lambda f: hostile.zeros_in_a_list(f, 5 * 10**7), "viewcount", "parquet"),
    "a megabyte for 400,000 rows": (lambda f: hostile.one_text_for_all(f, MEGABYTE, 400_000), "tagging", "parquet"),
    "each text like the one before": (lambda f: hostile.text_by_its_beginning(f, MEGABYTE, 4000), "tagging", "parquet"),
    "300 MB of text": (lambda f: hostile.one_long_text(f, 300 * MEGABYTE), "tagging", "parquet"),
    "2 billion nulls": (lambda f: hostile.nulls(f, 2 * 10**9), "tagging", "arrow"),
    "runs of a megabyte": (lambda f: hostile.runs(f, MEGABYTE, 400_000), "tagging", "arrow"),
    "a dictionary of a megabyte": (lambda f: hostile.dictionary(f, MEGABYTE, 400_000), "tagging", "arrow"),
    "views of a megabyte": (lambda f: hostile.views(f, MEGABYTE, 400_000), "tagging", "arrow"),
    "views of lists": (lambda f: hostile.list_views(f, 10**6, 400_000), "tagging", "arrow"),
    "lists of nothing": (lambda f: hostile.lists_of_nothing(f, 10**6, 2000), "tagging", "arrow"),
    "a packed batch of 1 GB": (lambda f: hostile.packed_batch(f, 2**30), "tagging", "arrow"),
    "40 levels of structs": (lambda f: hostile.deep(f, 40), "tagging", "arrow"),
    "40 levels of structs in Parquet": (lambda f: hostile.deep(f, 40, "parquet"), "tagging", "parquet"),
    "8 GB of blank lines": (lambda f: hostile.blank_lines(f, 2**33), "tagging", "csv.zst"),
    "8 GB of blank JSON lines": (lambda f: hostile.zstd(f / "b", b"\n" * MEGABYTE, 8192), "tagging", "jsonl.zst"),
    "a line of 8 GB": (lambda f: hostile.one_long_line(f, 2**33), "tagging", "jsonl.zst"),
    "a sentence of 1 GB": (lambda f: hostile.one_long_sentence(f, 2**30), "tagging", "conllu.zst"),
    "a zip of 16 MB zeros": (lambda f: hostile.zip_of_large(f, 16 * MEGABYTE, 200), "image", "zip"),
    "a zip with 50,000 names of one": (lambda f: hostile.zip_of_one(f, 16 * MEGABYTE, 50_000), "image", "zip"),
    "a tar of 4 GB": (lambda f: hostile.tar_of_large(f, 2**32), "image", "tar.gz"),
    "archives in archives": (lambda f: hostile.nested(f, 5), "image", "zip"),
}


@pytest.fixture(scope="module")
def house(launch: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One worker with all defaults of jobs."""
    root = write_inputs(tmp_path_factory.mktemp("root"))
    return launch(LECTERN_JOBS_ROOT=str(root), LECTERN_MODELS="tagging,viewcount,image")


def timed(house: Any) -> tuple[float, int]:
    """Seconds until an ordinary job is done, and the most memory of one process of a job meanwhile, bytes."""
    started, most = time.monotonic(), 0
    position = submit(house)
    while wait(house, position, "queued", "running", *ENDED)["state"] not in ENDED:
        for one in scorers(house.home):
            for process in (one, *children(one)):
                most = max(most, memory(process))
        time.sleep(0.1)
    assert house.page(position)["state"] == "done"
    return time.monotonic() - started, most


def children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def memory(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def lasted(job: Any) -> float:
    """Seconds from the job's start to its end, or to now."""
    started, ended = (job[name] and datetime.fromisoformat(job[name]).timestamp() for name in ("started", "ended"))
    return float((ended or time.time()) - (started or time.time()))


@pytest.fixture(scope="module")
def alone(house: Any) -> float:
    """What the ordinary job takes alone, at best of three."""
    return min(timed(house)[0] for _ in range(3))


@pytest.mark.parametrize("name", INPUTS)
def test_beside_another_job(name: str, house: Any, alone: float, tmp_path: Path) -> None:
    """The other caller's job takes at most twice its time alone, no process above 1 GB, and the upload ends soon."""
    make, model, form = INPUTS[name]
    path = make(tmp_path)
    asked = f"/v1/jobs?model={model}&format={form}"
    upload = httpx.post(f"{house.url}{asked}", content=path.read_bytes(), timeout=120, trust_env=False)
    assert upload.status_code == 202, upload.text
    position = upload.headers["location"]
    seconds, most = timed(house)
    found = house.page(position)
    until = time.monotonic() + MOST_SECONDS
    while found["state"] not in ENDED and time.monotonic() < until:
        most = max([most, *(memory(one) for each in scorers(house.home) for one in (each, *children(each)))])
        time.sleep(0.1)
        found = house.page(position)
    house.client.delete(position)
    print(  # noqa: T201 - the measured table
        f"\n| {name} | {path.stat().st_size:,} | {seconds / alone:.2f} | {most / 1e6:.0f} MB | {lasted(found):.1f} s | "
        f"{found['state']} {found['rows']:,} rows, {found['errors']:,} errors | {found['reason'] or ''}"
    )
    assert most <= MOST_BYTES
    assert seconds <= 2 * alone
    assert found["state"] in ENDED
    assert lasted(found) <= MOST_SECONDS
