"""Whom to ask what: the served models, a pool of questions for each, and what a sample of them is answered unloaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import gevent
import msgspec
import numpy as np

from loadtests.answers import Checker
from loadtests.records import OK
from loadtests.wire import HttpAnswer, HttpClient
from models.card import AnyCard, Assets
from models.registry import find_card

# Enough that no cache is likely to be what is measured, few enough to be encoded in a second.
QUESTIONS = 256
# All of the random questions, and some of a file's. Each is asked once, alone, before anything is timed.
SAMPLE = 256
# A service that limits its callers may have to be asked again, for so long in all.
PAUSE_SECONDS, MOST_PAUSES = 0.1, 30


class Unusable(Exception):
    """The service cannot be load-tested as asked; the message says why."""


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """Describe what is to be asked.

    Attributes:
        host: Of the service.
        weights: Model to its share of the requests; empty for all that are served, equally.
        data: Model to a file of real instances, one JSON object a line; the others get ``random_request``.
        seed: Of random questions.
        key: What callers show, if they must show one.
        timeout: Seconds an answer is waited for.
        questions: Random ones for each model.
    """

    host: str
    weights: dict[str, float] = {}
    data: dict[str, str] = {}
    seed: int = 7
    key: str = ""
    timeout: float = 30.0
    questions: int = QUESTIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadTarget:
    """One served model and the questions for it.

    Attributes:
        name: The model's.
        version: Of the model that was live at the start.
        digest: Of its artifact.
        card: Its promises.
        weight: Its share of the requests.
        requests: Whole requests, asked in turn.
        references: The answer each question of the sample got unloaded; ``None`` for the others.
        checker: Of its answers.
    """

    name: str
    version: str
    digest: str
    card: AnyCard
    weight: float
    requests: list[bytes]
    references: list[bytes | None]
    checker: Checker

    @property
    def path(self) -> str:
        """Return where its predictions are asked for."""
        return predict_path(self.name)

    def judge(self, question: int, answer: HttpAnswer) -> str:
        """``"ok"``, or why the answer to a question counts as a failure."""
        if answer.status != 200:
            return refusal(answer)
        return self.checker.check(answer.body, self.references[question])


def describe_failure(host: str, error: Exception) -> str:
    """Return why a service could not be asked at all, in one line."""
    if isinstance(error, OSError):
        return f"{host} does not answer ({error.strerror or error}); does the service run there?"
    if isinstance(error, Unusable | ValueError):
        return f"{error}"
    return f"{host} answers, but not in HTTP ({error})"


def predict_path(model: str) -> str:
    """Return where a model's predictions are asked for."""
    return f"/v1/models/{model}/predict"


def refusal(answer: HttpAnswer) -> str:
    """Return the reason of an answer that is no 200: its status, and the service's own code if it gives one."""
    try:
        code = msgspec.json.decode(answer.body).get("code", "")
    except (msgspec.DecodeError, AttributeError):
        code = ""
    return f"{answer.status} {code}".strip()


def find_targets(ask: Ask, wire: HttpClient) -> list[LoadTarget]:
    """Return the models to ask, with their questions encoded and the sample's answers known.

    Raises:
        Unusable: If a model is not served, a file does not fit it, or an unloaded question is not answered rightly.
    """
    served = {model["name"]: model for model in _page(wire, "/v1/models")["models"]}
    weights = ask.weights or dict.fromkeys(served, 1.0)
    if strange := set(weights) - set(served):
        raise Unusable(f"not served: {', '.join(sorted(strange))}; there are {', '.join(sorted(served))}")
    return [_target(ask, wire, served[name], weight) for name, weight in weights.items()]


def _target(ask: Ask, wire: HttpClient, model: Mapping[str, Any], weight: float) -> LoadTarget:
    name, card = model["name"], find_card(model["family"], model["task"])
    assets: Assets = msgspec.convert(_page(wire, f"/v1/models/{name}/assets"), card.assets)
    if name in ask.data:
        instances = read_instances(Path(ask.data[name]), card)
    else:
        rng = np.random.default_rng(ask.seed)
        instances = [card.random_request(rng, assets) for _ in range(ask.questions)]
    requests = [
        wire.request(predict_path(name), msgspec.json.encode({"instances": [instance]})) for instance in instances
    ]
    checker = Checker(card, name)
    return LoadTarget(
        name=name,
        version=str(model.get("version", "")),
        digest=str(model.get("digest", "")),
        card=card,
        weight=weight,
        requests=requests,
        references=_references(name, wire, checker, requests),
        checker=checker,
    )


def _references(name: str, wire: HttpClient, checker: Checker, requests: Sequence[bytes]) -> list[bytes | None]:
    """Return what a sample, spread over the questions, is answered when nothing else is asked.

    Raises:
        Unusable: If one is not answered, or by something that is no answer.
    """
    found: list[bytes | None] = [None] * len(requests)
    for number in range(0, len(requests), max(1, len(requests) // SAMPLE)):
        answer = _ask_patiently(wire, requests[number])
        reason = checker.check(answer.body, None) if answer.status == 200 else refusal(answer)
        if reason != OK:
            raise Unusable(f"{name}: unloaded, question {number} got: {reason}")
        found[number] = answer.body
    return found


def _ask_patiently(wire: HttpClient, request: bytes) -> HttpAnswer:
    """Return the answer, asked for again while the service refuses for the moment."""
    for _ in range(MOST_PAUSES):
        answer = wire.ask(request)
        if answer.status not in (429, 503):
            break
        gevent.sleep(PAUSE_SECONDS)
    return answer


def read_instances(file: Path, card: AnyCard, most: int = 4096) -> list[Any]:
    """Real instances, one JSON object a line.

    Raises:
        Unusable: If there are none, or a line is no instance of the card.
    """
    with file.open("rb") as lines:
        found = []
        for number, line in enumerate(islice(lines, most), 1):
            try:
                found.append(msgspec.json.decode(line, type=card.instance))
            except msgspec.MsgspecError as error:
                raise Unusable(f"{file}, line {number}: {error}") from error
    if not found:
        raise Unusable(f"{file} is empty")
    return found


def _page(wire: HttpClient, path: str) -> Any:
    answer = wire.ask(wire.request(path))
    if answer.status in (401, 403):
        raise Unusable(f"{wire.url}{path} answered {refusal(answer)}: --key-file names the file with a key that may")
    if answer.status != 200:
        raise Unusable(f"{wire.url}{path} answered {refusal(answer)}; does the service run there?")
    try:
        return msgspec.json.decode(answer.body)
    except msgspec.DecodeError:
        raise Unusable(f"{wire.url}{path} is no page of the service") from None
