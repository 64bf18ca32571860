"""The command line of batch scoring."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import click

from models.errors import (
    InputChanged,
    Interrupted,
    JobError,
    JobHeld,
    JobTooLarge,
    LecternError,
    NoSpace,
    TooManyErrors,
)
from service.scoring.execution.context import RunPolicy
from service.scoring.execution.destination import Out, is_same, open_output, work_folder
from service.scoring.execution.disk import Disk
from service.scoring.execution.interfaces import Workload
from service.scoring.execution.job import Job, of_disk
from service.scoring.execution.ledger import JobLedger
from service.scoring.execution.output import OutputManifest
from service.scoring.execution.progress import NoProgress, ProgressBar, ProgressLines, ProgressReporter, Stop
from service.scoring.execution.resume_command import resuming
from service.scoring.execution.workspace import Workspace
from service.scoring.file_assignment import FileAssignment, ask, ask_again
from service.scoring.options import FORMAT_OPTIONS, OUT, RUN_OPTIONS, SAID, WORK, WORKERS, having
from service.scoring.spec import InputOptions
from service.scoring.status import as_json, ask_status, estimate, verify
from service.scoring.workers.engines import Engine, choose, default_workers

# Of why a job stopped: schedulers read and log lines of bounded length.
MOST_TOLD = 1000
FAILED, ONLY_ERRORS, INTERRUPTED = 1, 7, 130
EXITS: dict[type[LecternError], int] = {
    TooManyErrors: 3,
    InputChanged: 4,
    JobHeld: 5,
    NoSpace: 6,
    JobTooLarge: 8,
    Interrupted: INTERRUPTED,
}
HELP = """A file in, every row out exactly once, whatever happens on the way.

\b
Exit status: 0 done; 1 failed; 2 a wrong command line; 3 more error rows than --max-errors
or --max-error-rate; 4 the input was changed; 5 another runner has the job; 6 paused, no space; 7 done, but every row is
an error row; 8 more rows or bytes than --max-rows or --max-bytes; 130 paused by Ctrl-C or SIGTERM.
After 3, 5, 6, 8 and 130, and after a crash, resume goes on where it was.
"""


@click.group(help=HELP)
def main() -> None:
    """The command line."""


@main.command()
@click.argument("model")
@click.argument("source", metavar="IN")
@OUT
@having(FORMAT_OPTIONS)
@having(RUN_OPTIONS)
def run(model: str, source: str, out: Out, **options: Any) -> None:
    """Score every row of IN with MODEL into OUT; goes on where an earlier run stopped."""
    formats = {
        name: options.pop(name) for name in ("columns", *InputOptions.__struct_fields__, *SAID) if name in options
    }
    names = {name: options.pop(name) for name in ("input_format", "output_format")}

    def find(_: Path) -> FileAssignment:
        asked = ask(model, source, str(out), make_options(**formats), **names, most_rows=options["max_rows"])
        if is_same(out, asked.asked.source):
            raise JobError(f"{out} is the input itself; give the output another name")
        return asked

    carry_out(out, find, **options)


@main.command()
@OUT
@having(RUN_OPTIONS)
def resume(out: Out, **options: Any) -> None:
    """Go on with the unfinished job of OUT."""
    carry_out(out, partial(find_asked, out), **options)


@main.command()
@OUT
@WORK
@click.option("--json", "is_json", is_flag=True, help="One JSON object.")
def status(out: Out, work: Path | None, is_json: bool) -> None:
    """Say how far the job of OUT is, and who works on it."""
    with failing(out, NoProgress()):
        folder = work_folder(out, work, is_needed=False)
        found = ask_status(open_output(out, folder, Disk()), folder)
    if is_json:
        click.echo(as_json(found))
        return
    total = "?" if found.rows_total is None else f"{found.rows_total:,}"
    click.echo(
        f"{found.state}: {found.rows:,} of {total} rows, {found.parts} of {found.parts_total or '?'} parts, "
        f"{found.errors:,} error rows"
    )
    if found.holder:
        click.echo(f"{found.holder} works on it")
    elif found.state != "done":
        click.echo(f"nobody works on it; go on with: {resuming(out, work)}")


@main.command(name="verify")
@OUT
def verify_output(out: Out) -> None:
    """Hash OUT, its input and its manifest anew, and say whether they are what they were; 1 if not."""
    with failing(out, NoProgress()):
        found = [*verify(open_output(out, work_folder(out, None, is_needed=False), Disk()))]
    for name, is_equal, digest in found:
        click.echo(f"{name}: {'equal' if is_equal else 'DIFFERS'}: {digest}")
    if not all(is_equal for _, is_equal, _ in found):
        sys.exit(FAILED)


@main.command()
@click.argument("model")
@click.argument("source", metavar="IN")
@click.argument("out", default="out.jsonl")
@having(FORMAT_OPTIONS)
@WORKERS
def plan(model: str, source: str, out: str, workers: int | None, **options: Any) -> None:
    """Say how many rows and parts IN has and about how long MODEL takes for them; writes nothing."""
    names = {name: options.pop(name) for name in ("input_format", "output_format")}
    with failing(Path(out), NoProgress()):
        asked = ask(model, source, out, make_options(**options), **names)
        count = workers or default_workers()
        found = estimate(asked, count)
    click.echo(f"{found.rows:,} rows in {found.parts:,} parts; about {found.seconds:,.1f} s with {count} workers")


def make_options(columns: tuple[str, ...], **options: Any) -> InputOptions:
    """Return the options that decide bytes."""
    pairs = [column.partition("=") for column in columns]
    if any(not (field and name) for field, _, name in pairs):
        raise click.BadParameter("expected FIELD=NAME", param_hint="--column")
    said = {name: options.pop(name) for name in SAID if name in options}
    series = {name: str(value) for name, value in said.items() if value}
    return InputOptions(columns={field: name for field, _, name in pairs}, series=series, **options)


def find_asked(out: Out, work: Path) -> FileAssignment:
    """Return what the unfinished job of an output was asked; the finished one's, if there is no other."""
    spec = find_spec(out, work)
    if spec is None:
        raise JobError(f"there is no unfinished job of {out}")
    return ask_again(spec)


def find_spec(out: Out, work: Path) -> bytes | None:
    """Return the spec of an output's unfinished job, or else of its finished one; ``None`` before there is one."""
    workspace = Workspace(work, Disk())
    if workspace.ledger.exists():
        with JobLedger(workspace.ledger, is_read_only=True) as ledger:
            entry = ledger.read()
        if entry is not None:
            return entry.spec
    manifest = open_output(out, work, Disk()).manifest()
    return None if manifest is None else as_json(manifest.spec).encode()


def carry_out(
    out: Out,
    find: Callable[[Path], Workload],
    *,
    workers: int | None,
    engine: str,
    ray_address: str | None,
    work: Path | None,
    row_timeout: float,
    quiet: bool,
    progress: str,
    **terms: Any,
) -> None:
    """Run a job, held to these terms, to its end, and say how it ended."""
    watch: ProgressReporter = NoProgress() if quiet else ProgressLines() if progress == "json" else ProgressBar()
    disk = Disk()
    with failing(out, watch, work), asked_to_stop() as stop:
        folder = work_folder(out, work).absolute()
        opening = choose(Engine(engine), ray_address, workers=workers, row_seconds=row_timeout, mixes=terms["mixes"])
        asked = find(folder)
        job = Job(
            assignment=asked,
            output=open_output(out, folder, disk),
            workspace=Workspace(folder, disk),
            disk=disk,
            terms=RunPolicy(**terms),
            watch=watch,
            stop=stop,
        )
        manifest, was_undone = job.run(opening(asked))
    say_done(out, watch, manifest, was_undone=was_undone)
    if manifest.rows and manifest.errors == manifest.rows:
        sys.exit(ONLY_ERRORS)


def say_done(out: Out, watch: ProgressReporter, manifest: OutputManifest, *, was_undone: bool) -> None:
    """That it is done, in the way that was wished."""
    if isinstance(watch, ProgressLines):
        watch.say(
            "done",
            rows=manifest.rows,
            errors=manifest.errors,
            passed_over=manifest.passed_over or 0,
            notes=manifest.notes or (),
            bytes=manifest.bytes,
            sha256=manifest.sha256,
        )
        return
    if isinstance(watch, ProgressBar):
        watch.close()
        had = "" if was_undone else "nothing to do, this job is done: "
        more = f", {manifest.passed_over:,} files passed over" if manifest.passed_over else ""
        click.echo(f"{had}{manifest.rows:,} rows, {manifest.errors:,} error rows{more}: {out}")
        for note in manifest.notes or ():
            click.echo(note, err=True)
        say_errors(watch)


def say_errors(watch: ProgressBar) -> None:
    """Print why the first error rows are some."""
    for line in watch.first_errors:
        click.echo(line, err=True)


def how_to_go_on(out: Out, work: Path | None, *, is_bound: bool) -> str:
    """What to do about a job that is paused, or above a bound; until its rows are counted there is none to resume."""
    spec = None
    with suppress(LecternError, OSError):
        spec = find_spec(out, work_folder(out, work))
    if spec is None:
        again = "raise the bound and give the command again" if is_bound else "give the same command again"
        return f"; nothing is begun yet: {again}"
    return f"; go on with: {resuming(out, work)}"


@contextmanager
def failing(out: Out, watch: ProgressReporter, work: Path | None = None) -> Iterator[None]:
    """Errors end the process with their exit status, and one sentence."""
    try:
        yield
    except (LecternError, OSError, KeyboardInterrupt, MemoryError) as found:
        error = _as_ours(found)
        is_paused = isinstance(error, Interrupted | NoSpace)
        if isinstance(watch, ProgressBar):
            watch.close()
            say_errors(watch)
        if isinstance(watch, ProgressLines):
            code = getattr(error, "code", JobError.code)
            watch.say("paused" if is_paused else "failed", code=code, reason=str(error)[:MOST_TOLD])
        else:
            is_bound = isinstance(error, TooManyErrors | JobTooLarge)
            more = how_to_go_on(out, work, is_bound=is_bound) if is_paused or is_bound else ""
            click.echo(f"lectern: {error}{more}", err=True)
        sys.exit(EXITS.get(type(error), FAILED))


def _as_ours(error: LecternError | OSError | KeyboardInterrupt | MemoryError) -> LecternError:
    if isinstance(error, MemoryError):
        return JobError("there is not enough memory to read the input; write it in smaller batches or row groups")
    if isinstance(error, KeyboardInterrupt):
        return Interrupted("stopped at once")
    return of_disk(error) if isinstance(error, OSError) else error


@contextmanager
def asked_to_stop() -> Iterator[Stop]:
    """Ctrl-C or SIGTERM asks the job to pause; a second one ends it at once."""
    stop = Stop()

    def ask_once(number: int, frame: object) -> None:
        if stop.is_requested:
            raise KeyboardInterrupt
        stop.is_requested = True

    before = [(number, signal.signal(number, ask_once)) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield stop
    finally:
        for number, handler in before:
            signal.signal(number, handler)
