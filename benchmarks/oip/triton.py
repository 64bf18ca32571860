"""Lectern held to a real Triton with the same artifacts, field by field: ``python -m benchmarks.oip triton``.

Both are asked the same requests. Where they differ, the difference must be among ``INTENDED``, with its reason.
"""

import http.client
import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from benchmarks.harness.environments import build, needs_of
from benchmarks.harness.machine import commit, describe
from benchmarks.harness.servers import stop
from benchmarks.oip.cases import ProtocolCase, right, wrong
from benchmarks.oip.requests import HEAD_LENGTH, read_answer
from models.paths import REPOSITORY
from models.runtime.predictor import Predictor

MODULE = "serve_pytriton_onnx"
PLACE = REPOSITORY / "benchmarks" / "results" / "oip_triton.json"

# Which difference of which case is meant, and why.
INTENDED = {
    ("unknown *", "status*"): "Triton says 400 of what is not there; here it is 404",
    ("*", "status 500"): "Triton blames itself for what the caller got wrong; here it is 400",
    ("axes that overflow", "status"): "Triton's process ends; here it is 400",
    ("views *", "status"): "What /v1 would not take as views is not taken here either",
    ("*: -1 in *", "status"): "Triton hands the model a place outside of its tables, which counts from their end",
    ("output twice", "status"): "An output can be wanted once",
    ("GET tagging*", "input*"): "A user has a text; the tensors are taken as well, and told as alternatives",
    ("JSON and binary", "outputs"): "binary_data_output holds for every output that says nothing else, as documented",
}


class TritonAnswer(NamedTuple):
    """Describe what one of the two said."""

    status: int
    headers: dict[str, str]
    body: bytes


class Difference(NamedTuple):
    """Describe where they differ."""

    case: str
    field: str
    lectern: str
    triton: str

    @property
    def reason(self) -> str | None:
        """Return why that is meant; ``None`` if it is not."""
        for (case, field), reason in INTENDED.items():
            if fnmatch(self.case, case) and fnmatch(self.field, field):
                return reason
        return None


def ask(address: str, case: ProtocolCase) -> TritonAnswer:
    """Return the answer of one of the two, on a connection of its own."""
    where = f"/models/{case.model}" if case.model else ""
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.putrequest("GET" if case.body is None else "POST", f"/v2{where}{case.path}")
        for name, value in case.headers.items():
            if value:
                connection.putheader(name, value)
        if case.body is not None:
            connection.putheader("content-length", str(len(case.body)))
        connection.endheaders(case.body)
        found = connection.getresponse()
        return TritonAnswer(found.status, {name.lower(): value for name, value in found.getheaders()}, found.read())
    except (http.client.HTTPException, OSError) as error:
        return TritonAnswer(0, {}, type(error).__name__.encode())
    finally:
        connection.close()


def compare(lectern: str, triton: str, predictors: Mapping[str, Predictor]) -> tuple[int, list[Difference]]:
    """Return how many requests were compared, and where the answers differ."""
    cases = [*right(predictors), *wrong(predictors)]
    return len(cases), [
        difference for case in cases for difference in _differ(case, ask(lectern, case), ask(triton, case))
    ]


def _differ(case: ProtocolCase, ours: TritonAnswer, theirs: TritonAnswer) -> Iterator[Difference]:
    if ours.status >= 500:
        yield Difference(case.name, "our own fault", f"{ours.status} {_error(ours)}", "")
        return
    if ours.status != theirs.status:
        kind = f"status {theirs.status}" if ours.status >= 400 and theirs.status >= 400 else "status"
        said = f"{theirs.status} {theirs.body[:160].decode(errors='replace')}"
        yield Difference(case.name, kind, f"{ours.status} {_error(ours)}", said)
    if ours.status >= 400 or theirs.status != 200:
        if ours.status >= 400 and not isinstance(_error(ours), str):
            yield Difference(case.name, "error", "missing", "")
        return
    if case.is_right and case.body is None:
        yield from _differ_pages(case, ours, theirs)
    elif case.body is not None:
        yield from _differ_outputs(case, ours, theirs)


def _error(answer: TritonAnswer) -> Any:
    with suppress(ValueError, KeyError, TypeError):
        return json.loads(answer.body)["error"]
    return None


def _differ_pages(case: ProtocolCase, ours: TritonAnswer, theirs: TritonAnswer) -> Iterator[Difference]:
    """Names, types and shapes; outputs of ours beside theirs are allowed."""
    if not theirs.body:
        return
    here, there = json.loads(ours.body), json.loads(theirs.body)
    keys = {"": ("name", "inputs", "outputs"), "/config": ("name", "max_batch_size", "input", "output")}
    for key in keys.get(case.path, ()) if case.model else ():
        mine, other = _plain(here[key]), _plain(there[key])
        if mine != other:
            yield Difference(case.name, key, json.dumps(mine), json.dumps(other))


def _plain(value: Any) -> Any:
    """Return a list of tensors with what both say of each; whatever else is not a list."""
    known = ("name", "datatype", "shape", "data_type", "dims")
    if not isinstance(value, list):
        return value
    return [{key: one[key] for key in known if key in one} for one in value if one["name"] != "prediction"]


def _differ_outputs(case: ProtocolCase, ours: TritonAnswer, theirs: TritonAnswer) -> Iterator[Difference]:
    here, mine = read_answer(ours.body, _length(ours))
    there, other = read_answer(theirs.body, _length(theirs))
    for key in ("model_name", "id"):
        if here.get(key) != there.get(key):
            yield Difference(case.name, key, str(here.get(key)), str(there.get(key)))
    forms = [[_form(output) for output in head["outputs"] if output["name"] in other] for head in (here, there)]
    if forms[0] != forms[1]:
        yield Difference(case.name, "outputs", json.dumps(forms[0]), json.dumps(forms[1]))
    for name in case.outputs or tuple(other):
        if not np.array_equal(mine[name], other[name]):
            yield Difference(case.name, f"values of {name}", str(mine[name].tolist()), str(other[name].tolist()))


def _form(output: Mapping[str, Any]) -> list[Any]:
    return [output["name"], output["datatype"], output["shape"], sorted(output.get("parameters", {}))]


def _length(answer: TritonAnswer) -> int | None:
    length = answer.headers.get(HEAD_LENGTH)
    return None if length is None else int(length)


def wait(address: str, models: Mapping[str, Any], seconds: float) -> None:
    """Return when every model is ready; pytriton binds them one by one.

    Raises:
        TimeoutError: If one is not.
    """
    deadline = time.monotonic() + seconds
    for model in models:
        case = ProtocolCase(name="", model=model, path="/ready")
        while ask(address, case).status != 200:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{model} is not ready")
            time.sleep(0.1)


@contextmanager
def running() -> Iterator[str]:
    """The address of a real Triton with every shipped artifact, until the end of the block.

    Raises:
        Unavailable: If it cannot be installed here.
    """
    interpreter = build("pytriton", needs_of(MODULE))
    with socket.socket() as one, socket.socket() as other, TemporaryDirectory() as home:
        for probe in (one, other):
            probe.bind(("127.0.0.1", 0))
        ports = [str(probe.getsockname()[1]) for probe in (one, other)]
        one.close()
        other.close()
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "HOME": home, "TMPDIR": home}
        process = subprocess.Popen(  # noqa: S603  our own
            [str(interpreter), "-m", f"benchmarks.peers.{MODULE}", *ports],
            env=environment,
            cwd=REPOSITORY,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield f"127.0.0.1:{ports[0]}"
        finally:
            stop(process)


def write(cases: int, differences: list[Difference]) -> None:
    """Keep what was found, with the machine and the commit it is of."""
    told = {"commit": commit(), "machine": describe(), "requests": cases}
    told["differences"] = [{**one._asdict(), "reason": one.reason} for one in differences]
    PLACE.write_text(json.dumps(told, indent=1) + "\n")


def table(cases: int, differences: list[Difference]) -> str:
    """Return what was found, for people."""
    lines = [f"{cases} requests, {len(differences)} differences"]
    for reason in [None, *dict.fromkeys(INTENDED.values())]:
        of_this = [one for one in differences if one.reason == reason]
        if of_this:
            lines.append(f"\n{reason or 'NOT INTENDED'}:")
            lines += [f"  {one.case} | {one.field} | {_short(one.lectern)} | {_short(one.triton)}" for one in of_this]
    return "\n".join(lines)


def _short(text: str) -> str:
    return re.sub(r"\s+", " ", text)[:160]
