"""Store jobs: one SQLite file that all processes of the service share.

A job's row changes in one transaction or not at all, so no process needs to know what another one is doing, and
what was answered to a caller is still so after a power cut. Progress alone is written without waiting for the disk.
"""

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from enum import StrEnum
from pathlib import Path
from threading import Lock
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from models.errors import IdempotencyMismatch, Overloaded, StorageFull, UnknownJob
from service.jobs.job_request import OutputFormat, RequestOptions

BUSY_SECONDS = 10.0


class JobState(StrEnum):
    """Describe where a job is on its way."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    PAUSED_NO_SPACE = "paused_no_space"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


UNFINISHED = (JobState.QUEUED, JobState.RUNNING, JobState.PAUSED, JobState.PAUSED_NO_SPACE)


class StoredJob(Struct, frozen=True, kw_only=True):
    """One job as it is written down.

    Attributes:
        id: What its caller knows it by; nobody can guess it.
        owner: The name of the key it was asked with; empty without keys.
        key: Its ``Idempotency-Key``.
        payload: SHA-256 of everything that was asked.
        model: The tag, with the version.
        input: Below the storage root, as it was asked; ``None`` for an upload.
        suffix: Of an upload, e.g. ``csv.gz``.
        code: Why it failed or rests, for machines; ``reason`` is for people.
        notes: What was passed over, put in order or filled in of its input, a line each.
        seconds: How long it has run so far.
        created: Seconds since 1970, as ``started`` and ``ended``.
    """

    id: str
    owner: str
    key: str | None
    payload: str
    model: str
    input: str | None
    suffix: str
    output_format: OutputFormat
    options: RequestOptions
    state: JobState = JobState.QUEUED
    rows: int = 0
    rows_total: int | None = None
    errors: int = 0
    rows_per_second: float | None = None
    seconds_left: float | None = None
    code: str | None = None
    reason: str | None = None
    output_bytes: int | None = None
    output_sha256: str | None = None
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    created: float = 0.0
    started: float | None = None
    ended: float | None = None

    @property
    def is_finished(self) -> bool:
        """Return whether nothing of it will change any more."""
        return self.state not in UNFINISHED


_TABLE = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY, id TEXT UNIQUE, owner TEXT, key TEXT, is_begun INTEGER, ended REAL, job TEXT
);
CREATE UNIQUE INDEX IF NOT EXISTS jobs_key ON jobs (owner, key) WHERE key IS NOT NULL;
CREATE INDEX IF NOT EXISTS jobs_ended ON jobs (ended);
"""
# What was begun before what was not; owners in turn, each one's oldest first.
_NEXT = """
SELECT job FROM jobs WHERE ended IS NULL AND id NOT IN (SELECT value FROM json_each(?1))
AND owner NOT IN (SELECT value FROM json_each(?3))
ORDER BY is_begun DESC, coalesce((SELECT value FROM json_each(?2) AS turns WHERE turns.key = jobs.owner), 0), number
LIMIT 1
"""
_ACTIVE = "SELECT json_extract(job, '$.state'), count(*) FROM jobs WHERE ended IS NULL GROUP BY 1"
_ALL = """
SELECT job FROM jobs WHERE (?1 IS NULL OR owner = ?1)
AND (?2 IS NULL OR number < (SELECT number FROM jobs WHERE id = ?2))
ORDER BY number DESC LIMIT ?3
"""


class JobStore:
    """The jobs of one service. Every method may wait for the disk: call it in a thread."""

    def __init__(self, file: Path) -> None:
        self.file = file
        # SQLite sleeps where it finds the file locked; the threads of one process need not.
        self._turn = Lock()
        # Owners, inputs and idempotency keys are nobody else's business; its log gets the same mode.
        os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
        file.chmod(0o600)
        with self._open() as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(_TABLE)
        # While a connection is open the last other one to close need not move everything from the log to the file.
        self._anchor = sqlite3.connect(file, check_same_thread=False)
        self._anchor.execute("SELECT count(*) FROM jobs").fetchone()

    @contextmanager
    def _open(self, synchronous: str = "FULL") -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.file, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
                connection.execute(f"PRAGMA synchronous = {synchronous}")
                yield connection
        except sqlite3.OperationalError as error:
            if "full" in str(error) or "disk I/O" in str(error):
                raise StorageFull("the disk is full; nothing can be written down") from error
            raise

    @contextmanager
    def _change(self, synchronous: str = "FULL") -> Iterator[sqlite3.Connection]:
        """One transaction that nobody else's comes between."""
        with self._turn, self._open(synchronous) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def submit(self, job: StoredJob, most: int) -> tuple[StoredJob, bool]:
        """Write a new job down; the job there is, and whether it is new.

        Args:
            job: The new one.
            most: Unfinished jobs there may be; one key may have half of them.

        Raises:
            Overloaded: If there are as many.
            IdempotencyMismatch: If its key stands for another payload.
        """
        with self._change() as connection:
            known = _known(connection, job.owner, job.key)
            if known is not None:
                return same(known, job.payload), False
            (waiting,) = connection.execute("SELECT count(*) FROM jobs WHERE ended IS NULL").fetchone()
            if waiting >= most:
                raise Overloaded("as many jobs are waiting as may; try again later")
            query = "SELECT count(*) FROM jobs WHERE ended IS NULL AND owner = ?"
            (own,) = connection.execute(query, (job.owner,)).fetchone()
            if job.owner and own >= max(1, most // 2):
                raise Overloaded("this key has half of all jobs that may wait; try again later")
            values = (job.id, job.owner, job.key, False, msgspec.json.encode(job).decode())
            connection.execute("INSERT INTO jobs (id, owner, key, is_begun, job) VALUES (?, ?, ?, ?, ?)", values)
        return job, True

    def known(self, owner: str, key: str) -> StoredJob | None:
        """Return the owner's job with this key."""
        with self._open() as connection:
            return _known(connection, owner, key)

    def get(self, identity: str, owner: str | None) -> StoredJob:
        """Return one job.

        Args:
            identity: Its id.
            owner: Who asks; ``None`` may see everybody's.

        Raises:
            UnknownJob: If there is none, or it is somebody else's: nobody learns which.
        """
        with self._open() as connection:
            return _get(connection, identity, owner)

    def all(self, owner: str | None, limit: int, before: str | None = None) -> list[StoredJob]:
        """Return the newest jobs, newest first.

        Args:
            owner: Whose; ``None``: everybody's.
            limit: How many at most.
            before: Only those older than the one with this id.

        Raises:
            UnknownJob: If ``before`` is none of theirs.
        """
        with self._open() as connection:
            if before is not None:
                _get(connection, before, owner)
            return [_job(text) for (text,) in connection.execute(_ALL, (owner, before, limit))]

    def cancel(self, identity: str, owner: str | None, now: float) -> StoredJob | None:
        """Cancel an unfinished job and return it; forget a finished one.

        Raises:
            UnknownJob: As for ``get``.
        """
        with self._change() as connection:
            job = _get(connection, identity, owner)
            if job.is_finished:
                connection.execute("DELETE FROM jobs WHERE id = ?", (identity,))
                return None
            job = replace(job, state=JobState.CANCELLED, ended=now, code=None, reason=None, seconds_left=None)
            _put(connection, job)
            return job

    def take_over(self) -> None:
        """Nothing runs: who ran them is gone."""
        with self._change() as connection:
            for (text,) in connection.execute("SELECT job FROM jobs WHERE ended IS NULL AND is_begun").fetchall():
                job = _job(text)
                if job.state is JobState.RUNNING:
                    _put(connection, replace(job, state=JobState.PAUSED))

    def next(self, without: list[str], turns: Mapping[str, int] = {}, full: Sequence[str] = ()) -> StoredJob | None:
        """Return the unfinished job whose turn it is, if any.

        Args:
            without: Jobs that are not meant.
            turns: By owner; one with a higher number waits.
            full: Owners of as many running jobs as they may have.
        """
        values = tuple(msgspec.json.encode(given).decode() for given in (without, turns, full))
        with self._open() as connection:
            row = connection.execute(_NEXT, values).fetchone()
            return None if row is None else _job(row[0])

    def change(self, identity: str, values: Mapping[str, Any], *, is_durable: bool = True) -> bool:
        """Write down what became of a job, if it is still unfinished; whether it was."""
        with self._change("FULL" if is_durable else "NORMAL") as connection:
            row = connection.execute("SELECT job FROM jobs WHERE id = ? AND ended IS NULL", (identity,)).fetchone()
            if row is not None:
                _put(connection, replace(_job(row[0]), **values))
            return row is not None

    def states(self) -> dict[str, JobState]:
        """Return the state of every job."""
        with self._open() as connection:
            found = [_job(text) for (text,) in connection.execute("SELECT job FROM jobs")]
        return {job.id: job.state for job in found}

    def active(self) -> dict[str, int]:
        """Return how many unfinished jobs there are, by state."""
        with self._open() as connection:
            return dict(connection.execute(_ACTIVE).fetchall())

    def over(self, identities: list[str]) -> list[str]:
        """Return which of these are finished, or forgotten."""
        query = "SELECT id FROM jobs WHERE ended IS NULL AND id IN (SELECT value FROM json_each(?))"
        with self._open() as connection:
            wanted = {found for (found,) in connection.execute(query, (msgspec.json.encode(identities).decode(),))}
        return [identity for identity in identities if identity not in wanted]

    def forget(self, ended_before: float) -> list[str]:
        """Forget what ended before a time, seconds since 1970; which that was."""
        with self._change() as connection:
            found = connection.execute("DELETE FROM jobs WHERE ended < ? RETURNING id", (ended_before,)).fetchall()
        return [identity for (identity,) in found]


def same(job: StoredJob, payload: str) -> StoredJob:
    """Return the job, if it is the one with this payload.

    Raises:
        IdempotencyMismatch: If it is not.
    """
    if job.payload != payload:
        raise IdempotencyMismatch("this idempotency key was used for another job")
    return job


def _known(connection: sqlite3.Connection, owner: str, key: str | None) -> StoredJob | None:
    if key is None:
        return None
    row = connection.execute("SELECT job FROM jobs WHERE owner = ? AND key = ?", (owner, key)).fetchone()
    return None if row is None else _job(row[0])


def _get(connection: sqlite3.Connection, identity: str, owner: str | None) -> StoredJob:
    row = connection.execute("SELECT job FROM jobs WHERE id = ?", (identity,)).fetchone()
    job = None if row is None else _job(row[0])
    if job is None or (owner is not None and job.owner != owner):
        raise UnknownJob("there is no such job")
    return job


def _put(connection: sqlite3.Connection, job: StoredJob) -> None:
    values = (job.state is not JobState.QUEUED, job.ended, msgspec.json.encode(job).decode(), job.id)
    connection.execute("UPDATE jobs SET is_begun = ?, ended = ?, job = ? WHERE id = ?", values)


def _job(text: str) -> StoredJob:
    return msgspec.json.decode(text, type=StoredJob)
