"""Ask a running server nearly right inference requests: ``python -m chaos.fuzz.oip_requests --cases 12000``.

Each must be answered with 200 or a refusal, never with a 5xx; a refusal must say why as the protocol has it; and every
so often a good request must have the answer that it had at first. Case ``n`` of a model and a seed is always the same.
"""

import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Any
from urllib.parse import urlsplit

import click
from tqdm import tqdm

from benchmarks.oip.requests import Request, of_instances
from chaos.fuzz.oip_mutations import make_case
from chaos.fuzz.rest_requests import REFUSALS, FuzzConnection, FuzzFailure
from models.artifact.manifest import MANIFEST_FILE
from models.paths import REPOSITORY
from models.runtime.predictor import Predictor, open_predictor
from models.runtime.session import open_artifact

GOOD_EVERY = 25


@dataclass
class OipFuzzReport:
    """Describe how the cases of one model ended.

    Attributes:
        statuses: How many answers of each status.
        failures: What went wrong, with the number of the case.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


def check(status: int, headers: dict[str, str], body: bytes) -> None:
    """Let an answer pass that the protocol and the house allow.

    Raises:
        Failure: If it is another.
    """
    if status == 200:
        length = headers.get("inference-header-content-length")
        head = json.loads(body[: int(length)] if length else body, parse_constant=_refuse)
        if not head["outputs"] or not head["model_name"]:
            raise FuzzFailure("an answer without outputs")
        return
    if status not in REFUSALS - {422}:
        raise FuzzFailure(f"status {status}: {body[:200]!r}")
    told = json.loads(body)
    if not isinstance(told["error"], str) or not told["error"] or told["status"] != status:
        raise FuzzFailure(f"a refusal that does not say why: {body[:200]!r}")


def _refuse(text: str) -> Any:
    raise FuzzFailure(f"{text} in an answer")


def run(url: str, model: str, predictor: Predictor, cases: int, seed: int) -> OipFuzzReport:
    """Ask a server so many requests, and see how they end."""
    parts = urlsplit(url)
    line, report = FuzzConnection((parts.hostname or "127.0.0.1", parts.port or 80)), OipFuzzReport()
    good = _good(model, of_instances([predictor.card.example(predictor.assets)], is_binary=True))
    expected = _ask(line, good)
    check(*expected)
    for number in range(cases):
        case = make_case(Random(f"{seed}/{model}/{number}"), model, predictor)  # noqa: S311  nothing is secret here
        try:
            answer = _ask(line, case.content)
            report.statuses[answer[0]] += 1
            check(*answer)
            if number % GOOD_EVERY == 0 and _ask(line, good)[2] != expected[2]:
                raise FuzzFailure("a good request is answered otherwise than at first")
        except (FuzzFailure, OSError, EOFError, ValueError, KeyError) as error:
            report.failures.append(f"{model} {number}: {error!r}")
            line.close()
    line.close()
    return report


def _good(model: str, request: Request) -> bytes:
    told = [f"{name}: {value}" for name, value in request.headers.items()]
    lines = [f"POST /v2/models/{model}/infer HTTP/1.1", "host: x", f"content-length: {len(request.body)}", *told]
    return "\r\n".join([*lines, "", ""]).encode() + request.body


def _ask(line: FuzzConnection, content: bytes) -> tuple[int, dict[str, str], bytes]:
    line.send(content)
    return line.read()


@click.command(help=__doc__)
@click.option("--url", default="http://127.0.0.1:3000", show_default=True, help="Of the running server.")
@click.option("--cases", default=12_000, show_default=True, help="Of all models together.")
@click.option("--seed", default=0, show_default=True, help="Case n of a model and a seed is always the same.")
def main(url: str, cases: int, seed: int) -> None:
    """Ask for every shipped model, and end with 1 if a promise was broken."""
    folders = sorted(path.parent for path in REPOSITORY.glob(f"models/*/trained/*/{MANIFEST_FILE}"))
    each = -(-cases // len(folders))
    statuses, failures = Counter[int](), list[str]()
    for folder in tqdm(folders, unit="model"):
        report = run(url, folder.name, open_predictor(open_artifact(folder)), each, seed)
        statuses += report.statuses
        failures += report.failures
    click.echo(
        f"{statuses.total()} cases: " + ", ".join(f"{count} x {code}" for code, count in sorted(statuses.items()))
    )
    click.echo("\n".join(failures[:20]) or "0 failures")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
