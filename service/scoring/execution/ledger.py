"""Record what a job was asked, and which parts of it are done: one SQLite file.

The journal is a rollback journal, truncated at each commit, with full syncs. A write-ahead log would save a sync or
two per part, but it needs memory shared by all readers: ``status`` on another machine, on a network file system or on
a full disk could not read it. A part takes a tenth of a second or more to score and two milliseconds to note.

Nothing hangs on the last commits lasting. A part has its name, and its folder is synced, before it is noted here:
without the note it is taken over by what its name says, or scored again to the same bytes. A note without the part's
bytes is found when the part is read for assembly.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from models.errors import JobError, JobHeld, NoSpace
from service.scoring.execution.interfaces import PartResult, PartSpec, PoisonRow

BUSY_SECONDS = 10
SCHEMA = """
CREATE TABLE IF NOT EXISTS job (
    one INTEGER PRIMARY KEY CHECK (one = 1), id TEXT, identity TEXT, spec BLOB, input_digest TEXT, rows INTEGER,
    parts INTEGER, stack TEXT, runner INTEGER, overwrites INTEGER
);
CREATE TABLE IF NOT EXISTS part (
    number INTEGER PRIMARY KEY, cut BLOB, rows INTEGER, digest TEXT, bytes INTEGER, errors INTEGER, name TEXT
);
CREATE TABLE IF NOT EXISTS runner (number INTEGER PRIMARY KEY, stamp TEXT);
CREATE TABLE IF NOT EXISTS fault (part INTEGER, row INTEGER, code TEXT, reason TEXT, PRIMARY KEY (part, row));
"""
# What SQLite says when it cannot write: a full disk, a quota, or a limit on the size of files.
UNWRITABLE = frozenset(
    {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_TRUNCATE}
)


class LedgerEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A job, as it was planned.

    Attributes:
        id: Digest of everything that decides the output's bytes.
        identity: The same without the input's bytes.
        spec: What was asked, as JSON.
        input_digest: sha256 of the input.
        stack: Versions and machine that it began with.
        overwrites: Whether it may replace a file that is in the place of its output.
    """

    id: str
    identity: str
    spec: bytes
    input_digest: str
    rows: int
    parts: int
    stack: str
    overwrites: bool


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """Describe how far a job is."""

    rows: int
    parts: int
    errors: int
    bytes: int


class JobLedger:
    """The ledger of one job; a context manager."""

    def __init__(self, path: Path, *, is_read_only: bool = False) -> None:
        self._path, self._runner = path, 0
        with self._translated():
            self._rows = self._connect("ro" if is_read_only else "rwc")
            if is_read_only:
                self._settle()
            else:
                self._rows.execute("PRAGMA journal_mode=TRUNCATE")
                self._rows.execute("PRAGMA synchronous=FULL")
                self._rows.executescript(SCHEMA)

    def _connect(self, mode: str) -> sqlite3.Connection:
        address = f"{self._path.resolve().as_uri()}?mode={mode}"
        return sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS, isolation_level=None)

    def _settle(self) -> None:
        """Take back what a writer was in the middle of when it was killed: until then SQLite refuses a mere reader."""
        try:
            self._rows.execute("SELECT 1 FROM sqlite_schema").fetchone()
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_READONLY_ROLLBACK:
                raise
            self._rows.close()
            self._rows = self._connect("rw")

    def __enter__(self) -> "JobLedger":
        return self

    def __exit__(self, *_: object) -> None:
        self._rows.close()

    def read(self) -> LedgerEntry | None:
        """Return the job; ``None`` before it was planned."""
        with self._translated():
            row = self._rows.execute(
                "SELECT id, identity, spec, input_digest, rows, parts, stack, overwrites FROM job"
            ).fetchone()
        if row is None:
            return None
        return msgspec.convert(dict(zip(LedgerEntry.__struct_fields__, row, strict=True)), LedgerEntry, strict=False)

    @contextmanager
    def planning(self) -> Iterator["PlannedParts"]:
        """Note the parts and, last, the job: all of it or nothing."""
        with self._transaction():
            self._rows.execute("DELETE FROM part")
            yield PlannedParts(self._rows)

    def begin(self, stamp: str) -> frozenset[str]:
        """Return one more runner: it alone may write from now on.

        Args:
            stamp: What it marks its files with.

        Returns:
            The stamps of those before it.
        """
        with self._transaction():
            stamps = frozenset(row[0] for row in self._rows.execute("SELECT stamp FROM runner"))
            (self._runner,) = self._rows.execute("UPDATE job SET runner = runner + 1 RETURNING runner").fetchone()
            self._rows.execute("INSERT INTO runner VALUES (?, ?)", (self._runner, stamp))
        return stamps

    def record(self, parts: Iterable[PartResult]) -> None:
        """Parts that are in their places, whole."""
        with self._fenced():
            self._rows.executemany(
                "UPDATE part SET digest = ?, bytes = ?, errors = ?, name = ? WHERE number = ?",
                [(part.digest, part.size, part.errors, part.name, part.number) for part in parts],
            )

    def forget(self, number: int) -> None:
        """A part is not what was noted."""
        with self._fenced():
            self._rows.execute("UPDATE part SET digest = NULL WHERE number = ?", (number,))

    def blame(self, blame: PoisonRow) -> None:
        """A row that no process survives, or answers for."""
        with self._fenced():
            self._rows.execute("INSERT OR REPLACE INTO fault VALUES (?, ?, ?, ?)", msgspec.structs.astuple(blame))

    def blames(self, number: int) -> list[PoisonRow]:
        """Return the rows of a part that must not be run again."""
        with self._translated():
            found = self._rows.execute("SELECT * FROM fault WHERE part = ? ORDER BY row", (number,)).fetchall()
        return [PoisonRow(part=part, row=row, code=code, reason=reason) for part, row, code, reason in found]

    def next_pending(self, after: int) -> PartSpec | None:
        """Return the first part with a higher number that is not done."""
        with self._translated():
            row = self._rows.execute(
                "SELECT cut FROM part WHERE number > ? AND digest IS NULL ORDER BY number LIMIT 1", (after,)
            ).fetchone()
        return None if row is None else msgspec.json.decode(row[0], type=PartSpec)

    def part(self, number: int) -> tuple[PartSpec, PartResult | None]:
        """Return a part, and what was noted when it was done."""
        with self._translated():
            cut, *noted = self._rows.execute(
                "SELECT cut, digest, bytes, errors, name FROM part WHERE number = ?", (number,)
            ).fetchone()
        digest, size, errors, name = noted
        found = msgspec.json.decode(cut, type=PartSpec)
        if digest is None:
            return found, None
        return found, PartResult(
            number=number, name=name, rows=found.rows, errors=errors, digest=digest, size=size, seconds=0.0
        )

    def digests(self) -> Iterator[dict[str, Any]]:
        """Yield every part's rows, errors and digest, in order."""
        with self._translated():
            for rows, errors, digest in self._rows.execute("SELECT rows, errors, digest FROM part ORDER BY number"):
                yield {"rows": rows, "errors": errors, "sha256": digest}

    def totals(self) -> Totals:
        """Return how much is done."""
        with self._translated():
            row = self._rows.execute(
                "SELECT coalesce(sum(rows), 0), count(*), coalesce(sum(errors), 0), coalesce(sum(bytes), 0) "
                "FROM part WHERE digest IS NOT NULL"
            ).fetchone()
        return Totals(rows=row[0], parts=row[1], errors=row[2], bytes=row[3])

    @contextmanager
    def _fenced(self) -> Iterator[None]:
        """A transaction that only the latest runner can make."""
        with self._transaction():
            row = self._rows.execute("SELECT runner FROM job").fetchone()
            if row is None or row[0] != self._runner:
                raise JobHeld("another runner has begun on this job")
            yield

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._translated():
            self._rows.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._rows.execute("COMMIT")
            except BaseException:
                # A full disk may have rolled it back already.
                if self._rows.in_transaction:
                    self._rows.execute("ROLLBACK")
                raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", None)
            if code in UNWRITABLE:
                raise NoSpace(f"the ledger cannot be written: {error}") from error
            if code == sqlite3.SQLITE_BUSY:
                raise JobHeld("another runner is writing to the ledger of this job, and does not end") from error
            raise JobError(
                f"the ledger {self._path} cannot be used: {error}; without it the job begins anew"
            ) from error


class PlannedParts:
    """A job being planned."""

    def __init__(self, rows: sqlite3.Connection) -> None:
        self._rows = rows

    def add(self, cut: PartSpec) -> None:
        """The next part."""
        self._rows.execute(
            "INSERT INTO part (number, cut, rows) VALUES (?, ?, ?)", (cut.index, msgspec.json.encode(cut), cut.rows)
        )

    def close(self, entry: LedgerEntry) -> None:
        """That was the last of them."""
        self._rows.execute(
            "INSERT OR REPLACE INTO job VALUES (1, ?, ?, ?, ?, ?, ?, ?, 0, ?)",
            (
                entry.id,
                entry.identity,
                entry.spec,
                entry.input_digest,
                entry.rows,
                entry.parts,
                entry.stack,
                entry.overwrites,
            ),
        )
