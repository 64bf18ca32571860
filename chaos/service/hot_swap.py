"""Hot swap: a model is exchanged again and again under load, and no answer is lost or mixed up."""

import hashlib
import http.client
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import mkdtemp
from time import sleep

import numpy as np
import onnx
from msgspec.structs import replace
from onnx import numpy_helper

from benchmarks.harness.servers import install_artifacts
from chaos.service.harness import BackgroundLoad, Harness, Site, offer, requests
from chaos.service.records import ChaosPhase, ChaosReport, LoadPlan
from chaos.service.verdict import ChaosVerdict
from models.artifact.manifest import MANIFEST_FILE, MODEL_FILE, from_bytes, to_bytes
from models.paths import REPOSITORY
from service.auth.api_keys import line_of, new_key

TITLE = "hot swap"
CONTROL = "answers that all name the first version"
MODEL, OTHER = "viewcount", "9.0.0"
SWAPS = 100
RATE, PAUSE_SECONDS = 200.0, 0.2


def run(ground: Harness) -> ChaosVerdict:
    """Return the trial."""
    return _hold(ground)


def control(ground: Harness) -> ChaosVerdict:
    """Return the same, with answers that all name the first version."""
    return _hold(ground, "wrong_digest")


def _hold(ground: Harness, *faults: str) -> ChaosVerdict:
    verdict = ChaosVerdict(trial="hot_swap", title=TITLE)
    key, home = new_key(), Path(mkdtemp(dir=ground.folder))
    line = line_of(key, "torture", ("predict", "admin", "metrics"))
    install_artifacts(home)
    shipped = install_other(home)
    headers = {"x-api-key": key}
    content = requests(MODEL, ground.examples(MODEL)[MODEL], x_api_key=key)
    with ground.serve_at(home, MODEL, faults=faults, headers=headers, LECTERN_KEYS=line) as site:
        references = {}
        for version in (OTHER, shipped):
            activate(site, MODEL, version, headers)
            references |= reference(offer(site, content, (50, 1), keeps_answers=True))
        times = ground.part(SWAPS, 10)
        judge(verdict, *swap(site, content[0], MODEL, (OTHER, shipped), times, headers), references)
    return verdict


def install_other(home: Path) -> str:
    """Put another version of the model, with other weights, into a server's store; the shipped version's number."""
    folder = home / "other"
    shutil.copytree(REPOSITORY / "models" / MODEL / "trained" / MODEL, folder)
    manifest = from_bytes((folder / MANIFEST_FILE).read_bytes(), folder)
    content = moved((folder / MODEL_FILE).read_bytes())
    (folder / MODEL_FILE).write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    changed = replace(manifest, version=OTHER, model_sha256=digest, model_bytes=len(content))
    (folder / MANIFEST_FILE).write_bytes(to_bytes(changed))
    install_artifacts(home, folder)
    return manifest.version


def moved(content: bytes) -> bytes:
    """Return the same network with every weight a little larger."""
    model = onnx.load_model_from_string(content)
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.dtype == np.float32:
            weight.CopyFrom(numpy_helper.from_array((values * np.float32(1.01)).astype(np.float32), weight.name))
    found: bytes = model.SerializeToString()
    return found


def activate(site: Site, model: str, version: str, headers: Mapping[str, str]) -> int:
    """Return the status of the call that makes a version the served one."""
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=60)
    try:
        body = json.dumps({"version": version})
        wanted = {"content-type": "application/json", **headers}
        connection.request("POST", f"/v1/admin/models/{model}/activate", body, wanted)
        return connection.getresponse().status
    finally:
        connection.close()


def swap(
    site: Site, content: bytes, model: str, versions: Sequence[str], times: int, headers: Mapping[str, str]
) -> tuple[ChaosReport, list[int]]:
    """Send one request over and over while the versions take turns, and report what became of it and of the calls."""
    plan = LoadPlan(
        port=site.port,
        requests=[content],
        phases=[ChaosPhase(rate=RATE, seconds=3 + 3 * times * PAUSE_SECONDS)],
        keeps_answers=True,
    )
    load, statuses = BackgroundLoad(plan), list[int]()
    sleep(1)
    for number in range(times):
        statuses.append(activate(site, model, versions[number % len(versions)], headers))
        sleep(PAUSE_SECONDS)
    return load.report(), statuses


def judge(verdict: ChaosVerdict, report: ChaosReport, swaps: Sequence[int], references: Mapping[str, str]) -> None:
    """Every answer is a 200 whose digest is known and whose body is that digest's.

    Args:
        verdict: Gets the bars.
        report: Of the load.
        swaps: Statuses of the calls.
        references: Checksum of the body by ``x-model-digest``, asked for one version at a time.
    """
    known = {f"200 {digest} {checksum}" for digest, checksum in references.items()}
    strange = {answer: number for answer, number in report.answers.items() if answer not in known}
    verdict.expect("every swap is a 200", sorted(set(swaps)), set(swaps) == {200})
    verdict.expect("every request is a 200", report.statuses, set(report.statuses) == {"200"})
    verdict.expect("every body is the one of its digest", strange or "so", not strange)
    verdict.expect("every version was seen", len(known & set(report.answers)), known <= set(report.answers))
    verdict.measured = {"swaps": len(swaps), "answers": report.answers}


def reference(report: ChaosReport) -> dict[str, str]:
    """Return the checksum by digest of answers that are all alike.

    Raises:
        ValueError: If they are not.
    """
    ((answer, _),) = report.answers.items()
    _, digest, checksum = answer.split(" ")
    return {digest: checksum}
