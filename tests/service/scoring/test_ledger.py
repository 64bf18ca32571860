"""Who may write: one runner, by the lock; and the latest one, by the ledger."""

import multiprocessing
import os
import signal
import sqlite3
from pathlib import Path

import pytest

from models.errors import JobHeld
from service.scoring.execution import ledger as ledgers
from service.scoring.execution.interfaces import PartSpec, PoisonRow
from service.scoring.execution.ledger import JobLedger
from service.scoring.execution.lock import Lock, find_holder
from tests.service.scoring.stand_in import Doubling, write_rows

ROWS = 400
FORK = multiprocessing.get_context("fork")


def test_ledger_lets_only_the_latest_runner_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fencing: once another has begun, the one before can note nothing; nor can anybody while one never ends."""
    asked, path = Doubling(tmp_path / "in"), tmp_path / "ledger"
    write_rows(tmp_path / "in", ROWS)
    monkeypatch.setattr(ledgers, "BUSY_SECONDS", 0.1)
    with JobLedger(path) as first, JobLedger(path) as second:
        with first.planning() as plan:
            for cut in asked.source().cuts():
                plan.add(cut)
            plan.close(
                ledgers.LedgerEntry(
                    id="1", identity="1", spec=b"{}", input_digest="", rows=1, parts=1, stack="", overwrites=False
                )
            )
        assert first.begin("a") == frozenset()
        assert second.begin("b") == {"a"}
        blame = PoisonRow(part=0, row=1, code="runner_failed", reason="")
        with pytest.raises(JobHeld, match="another runner has begun"):
            first.blame(blame)
        second.blame(blame)
        assert first.blames(0) == [blame]
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(JobHeld, match="does not end"):
            second.forget(0)
        other.close()


def test_a_ledger_whose_writer_was_killed_is_read(tmp_path: Path) -> None:
    """Who asks about a job, or goes on with it, finds what was last committed, and not the half of the next."""
    path = tmp_path / "ledger"
    JobLedger(path).__exit__()
    writer = FORK.Process(target=write_half, args=(path,))
    writer.start()
    writer.join()
    assert writer.exitcode == -signal.SIGKILL
    assert path.with_name("ledger-journal").stat().st_size  # it was in the middle indeed
    with JobLedger(path, is_read_only=True) as ledger:
        assert ledger.read() is None
        assert ledger.totals().parts == 0


def write_half(path: Path) -> None:
    """Begin a transaction, and be killed."""
    with JobLedger(path) as ledger:
        ledger._rows.execute("PRAGMA cache_size=1")  # so that it is in the file before it is committed
        with ledger.planning() as plan:
            for index in range(ROWS):
                plan.add(PartSpec(index=index, first_row=index, rows=1, digest="0" * 64, place={}))
            os.kill(os.getpid(), signal.SIGKILL)


def test_lock(tmp_path: Path) -> None:
    """One holder; who it is can be seen; a lock file that was replaced is noticed."""
    lock = Lock(tmp_path / "lock")
    assert "process" in str(find_holder(tmp_path / "lock"))
    with pytest.raises(JobHeld, match="process"):
        Lock(tmp_path / "lock")
    lock.confirm()
    (tmp_path / "lock").unlink()
    (tmp_path / "lock").touch()
    with pytest.raises(JobHeld, match="taken away"):
        lock.confirm()
    lock.release()
    assert find_holder(tmp_path / "lock") is None
    assert find_holder(tmp_path / "none") is None
