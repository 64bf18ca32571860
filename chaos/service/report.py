"""The results of the trials, as files."""

import json
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.serving.report import table
from chaos.service.verdict import ChaosVerdict, Trials, number


def save(found: Trials, folder: Path) -> None:
    """Write ``torture.json`` and ``torture.md``."""
    folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps(_short(msgspec.to_builtins(found)), indent=1, ensure_ascii=False)
    (folder / "torture.json").write_text(content + "\n")
    (folder / "torture.md").write_text(markdown(found))


def load(path: Path) -> Trials:
    """Read results back."""
    return msgspec.json.decode(path.read_bytes(), type=Trials)


def markdown(found: Trials) -> str:
    """Return the page: a summary, then every bar."""
    machine = found.machine
    origin = (
        f"`python -m chaos.service`, last on {found.date}: {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['system']}, Python {machine['python']}. Server on one core, client on the other."
    )
    rows = [_summary(verdict) for verdict in found.verdicts]
    parts = ["# Torture trials", origin, table(["trial", "bars met", "size", "seconds", "commit", "control"], rows)]
    parts += [_section(verdict) for verdict in found.verdicts]
    return "\n\n".join(parts) + "\n"


def _summary(verdict: ChaosVerdict) -> list[str]:
    met, size = sum(bar.is_met for bar in verdict.bars), f"{number(100 * verdict.share)} %"
    return [
        verdict.title,
        f"{met} of {len(verdict.bars)}",
        size,
        f"{verdict.seconds:.0f}",
        verdict.commit[:12],
        verdict.control or "–",
    ]


def _section(verdict: ChaosVerdict) -> str:
    rows = [["yes" if bar.is_met else "**no**", bar.promise, bar.found] for bar in verdict.bars]
    lines = [f"## {verdict.title}", table(["met", "promise", "found"], rows), *verdict.notes]
    if verdict.measured:
        figures = json.dumps(_short(verdict.measured), indent=1, ensure_ascii=False)
        lines.append(f"```json\n{figures}\n```")
    return "\n\n".join(lines)


def _short(value: Any) -> Any:
    """Return the same with figures of four digits, and infinity as a word: JSON has none."""
    if isinstance(value, float):
        return float(f"{value:.4g}") if value not in (float("inf"), float("-inf")) else "never"
    if isinstance(value, dict):
        return {key: _short(one) for key, one in value.items()}
    return [_short(one) for one in value] if isinstance(value, list) else value
