"""The tables of a run, in Markdown."""

from collections.abc import Iterable, Sequence
from statistics import median

from benchmarks.harness.peers import ON_BOTH_CORES, PEERS
from benchmarks.harness.results import Bound, Heading, ResultCell, ResultRow, Results

ENGINE, CODEC = "ONNX Runtime alone, in process", "codec + ONNX Runtime, in process"
NOTE = """Cells are **answers per second (p50 / p99 ms)**, medians over the rounds. `µs` is CPU time of the server's
whole process tree per answer, `spread` the lowest and highest rate, `% of codec` the share of what the same codec
and model reach in process on the same core; all three at the table's highest load of 64 connections or fewer.
`!` not every answer was a 200 · `†` the client had no time left and the server had: the figure is the client's ·
`~` no round was undisturbed. wrk's p99 counts a slow answer more than once (its correction for coordinated omission).

Every server has all six models, but ALONE only the one that is asked: their idle workers would take part of the core.
"""
ALONE = " and ".join(peer.title for peer in PEERS if peer.is_alone)
OURS = {peer.key for peer in PEERS if peer.is_ours}


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table, its first column on the left."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float) -> str:
    """Return a number with three or four digits that matter."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def markdown(results: Results) -> str:
    """Return everything, as a page."""
    parts = [f"# Lectern and its peers\n\n{_origin(results)}\n\n{NOTE.replace('ALONE', ALONE)}"]
    parts += [f"## {heading.title}\n\n{workload_table(results, heading)}" for heading in results.workloads]
    sections = (_pair(results), _burst(results), _upkeep(results), _missing(results))
    parts += [section for section in sections if section]
    return "\n\n".join(parts) + "\n"


def workload_table(results: Results, heading: Heading) -> str:
    """Return one row per peer, in the order of their speed, with the limits on top."""
    bound = results.bound(heading.key)
    column = _column(heading)
    header = ["", *(f"c={count}" for count in heading.connections), "µs", "spread", "% of codec"]
    if heading.unit:
        header.append(f"{heading.unit}/s")
    limit = bound.best("codec")[0]
    rows = []
    for row in results.rows:
        if row.key not in ON_BOTH_CORES and (row.key in OURS or not heading.is_ours):
            rows.append((_rate(results, row, heading, column), _line(results, row, heading, limit)))
    ranked = [line for _, line in sorted(rows, key=lambda entry: -entry[0])]
    return table(header, [*_limit_lines(bound, heading, len(header)), *ranked])


def _column(heading: Heading) -> int:
    return max(count for count in heading.connections if count <= 64)


def _rate(results: Results, row: ResultRow, heading: Heading, column: int) -> float:
    cell = results.cell(row.key, heading.key, column)
    return cell.middle("rate") if cell else -1.0


def _line(results: Results, row: ResultRow, heading: Heading, limit: float) -> list[str]:
    cells = [results.cell(row.key, heading.key, count) for count in heading.connections]
    at = heading.connections.index(_column(heading))
    line = [row.title, *map(show, cells)]
    cell = cells[at]
    if cell is None:
        line[1] = row.refused.get(heading.key) or row.reason or "–"
        return [*line, "–", "–", "–", *(["–"] if heading.unit else [])]
    low, high = cell.spread
    rate = cell.middle("rate")
    line += [number(cell.middle("server_us")), f"{number(low)}..{number(high)}"]
    line.append(f"{100 * rate / limit:.0f}" if limit else "–")
    return [*line, number(rate * heading.units)] if heading.unit else line


def show(cell: ResultCell | None) -> str:
    """Return one cell."""
    if cell is None:
        return "–"
    speed = f"{number(cell.middle('rate'))} ({number(cell.middle('p50_ms'))} / {number(cell.middle('p99_ms'))})"
    errors = cell.middle("errors")
    return f"{speed}{cell.marks}" + (f" {100 * errors:.1f} % errors" if errors else "")


def _limit_lines(bound: Bound, heading: Heading, width: int) -> list[list[str]]:
    """Return the limits, in the columns of the table."""
    lines = []
    for title, kind in ((ENGINE, "engine"), (CODEC, "codec")):
        rate, size = bound.best(kind)
        if rate:
            said = f"{number(rate)}, {size} in a batch"
            lines.append([f"*{title}*", said, *[""] * (width - 2 - bool(heading.unit))])
            lines[-1] += [number(rate * heading.units)] if heading.unit else []
    if bound.alone and heading.unit:
        rate = median(bound.alone)
        lines.append(["*`Predictor`, one by one, in process*", number(rate), *[""] * (width - 3)])
        lines[-1].append(number(rate * heading.units))
    return lines


def _pair(results: Results) -> str:
    """Return one and two workers on both cores, beside one on its own core."""
    titles = {"lectern": "1 worker on one core, client on the other"}
    titles |= {row.key: f"{row.title.removeprefix('Lectern, ')}, client and server on both cores"
               for row in results.rows if row.key in ON_BOTH_CORES}  # fmt: skip
    keys = [heading for heading in results.workloads if results.cell("lectern-2", heading.key, 64)]
    if not keys:
        return ""
    rows = [[title, *(show(results.cell(key, heading.key, 64)) for heading in keys)] for key, title in titles.items()]
    return "## Lectern's workers, c=64\n\n" + table(["", *(heading.key for heading in keys)], rows)


def _burst(results: Results) -> str:
    """64 molecules that arrive together."""
    rows = []
    for name, found in results.bound("molecules").burst_ms.items():
        rows.append([f"*in process, {name}*", number(median(found)), "", ""])
    for row in results.rows:
        if row.burst_ms:
            alone, together = (median(row.burst_ms[name]) for name in ("one by one", "together"))
            rows.append([row.title, number(alone), number(together), f"{alone / together:.1f}"])
        elif "molecules" in row.refused:
            rows.append([row.title, row.refused["molecules"], "–", "–"])
    if not rows:
        return ""
    header = ["64 molecules, ms until the last answer", "one by one", "together", "times as fast"]
    return "## 64 molecules that arrive together\n\n" + table(header, rows)


def _upkeep(results: Results) -> str:
    """Start and memory."""
    rows = []
    for row in results.rows:
        if not row.memory_mb:
            rows.append([row.title, row.reason or "–", "–", "–", "–"])
            continue
        sizes = [number(median(found[kind] for found in row.memory_mb)) for kind in ("rss", "pss", "uss")]
        rows.append([row.title, number(median(row.ready_seconds)), *sizes])
    header = ["six models served", "start to ready, s", "RSS, MB", "PSS, MB", "USS, MB"]
    return "## Start and memory\n\nMemory of the whole tree after a round's load.\n\n" + table(header, rows)


def _missing(results: Results) -> str:
    """Whoever was not measured, and what of the others, with the reasons."""
    lines = [f"- {key}: its data is not on this machine" for key in results.absent]
    lines += [f"- {row.title}: {row.reason}" for row in results.rows if row.reason]
    lines += [f"- {row.title}, {what}: {why}" for row in results.rows for what, why in row.refused.items()]
    return "## Not measured\n\n" + "\n".join(lines) if lines else ""


def _origin(results: Results) -> str:
    machine = results.machine
    return (
        f"`{results.command}` at `{results.commit}` on {results.date}: {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['system']}, Python {machine['python']}. {results.rounds} rounds of {results.seconds:g} s a cell in "
        f"rotated order, client {results.client}. Server on one core, client on the other."
    )
