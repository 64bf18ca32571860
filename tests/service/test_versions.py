"""Another version goes live: what is checked first, what becomes of requests under way, what other workers do."""

import asyncio
import dataclasses
import gc
import shutil
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from models.artifact.manifest import MANIFEST_FILE, MODEL_FILE, from_bytes, to_bytes
from models.errors import ActivationRefused, ArtifactMissing, HttpError, SettingsError, UnknownModel, UnknownVersion
from models.registry import FAMILIES
from models.runtime.predictor import open_predictor
from models.runtime.session import Session
from service.inference.gateway import InferenceGateway
from service.inference.scheduler import FairScheduler
from service.rollout import rollout
from service.rollout.comparison import check_change_rate, compare, differ
from service.rollout.rollout import Rollout
from service.runners.backends import InProcessBackend
from service.runners.services import FamilyRunner, runner_class
from service.settings import Settings
from service.store import active_versions
from service.store.catalog import ServedModel

Work = Callable[[], Coroutine[Any, Any, None]]
SHIPPED = Path(__file__).parents[2] / "models/viewcount/trained/viewcount"
FIRST = from_bytes((SHIPPED / MANIFEST_FILE).read_bytes(), "").version
BODY = b'{"instances":[{"views":[%s]}]}' % b",".join([b"100"] * 56)


def run(work: Work) -> None:
    asyncio.run(asyncio.wait_for(work(), 20))


def version(folder: Path, number: str, **changes: Any) -> ServedModel:
    """Return the shipped view-count model under another version, with these changes to its manifest."""
    target = folder / number
    shutil.copytree(SHIPPED, target)
    manifest = replace(from_bytes((target / MANIFEST_FILE).read_bytes(), ""), version=number, **changes)
    (target / MANIFEST_FILE).write_bytes(to_bytes(manifest))
    return ServedModel(manifest=from_bytes((target / MANIFEST_FILE).read_bytes(), ""), folder=target)


class Deployment:
    """A gateway's parts with the view-count model, and a store of its versions."""

    def __init__(self, folder: Path, pinned: tuple[str, ...] = ()) -> None:
        self.store = {FIRST: version(folder, FIRST)}
        settings = Settings()
        self.pool, self.lanes = ThreadPoolExecutor(1), FairScheduler(1)
        self.gateway = InferenceGateway(endpoints={}, settings=settings, pool=self.pool)
        (family,) = (one for one in FAMILIES if one.name == "viewcount")
        runner: FamilyRunner = runner_class(family, [self.store[FIRST]], settings)()
        self.backend = InProcessBackend(runner, self.pool, self.lanes, settings)
        self.gateway.endpoints["viewcount"] = self.backend.load_initial(self.store[FIRST])
        self.versions = Rollout(self.gateway, {"viewcount": self.backend}, frozenset(pinned))

    def find(self, tag: str) -> ServedModel:
        try:
            return self.store[tag.split(":")[1]]
        except KeyError:
            raise ArtifactMissing(tag) from None

    async def ask(self) -> dict[str, Any]:
        endpoint = self.gateway.find("viewcount")
        answer: dict[str, Any] = msgspec.json.decode(await self.gateway.answer(endpoint, BODY))
        return answer


@pytest.fixture
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    made = Deployment(tmp_path / "store")
    monkeypatch.setattr(rollout, "find_version", made.find)
    return made


def test_goes_live_and_back(deployment: Deployment, tmp_path: Path) -> None:
    """A version is live from the next request on, for the next start too, and so is the one before it."""
    deployment.store["9.0.0"] = version(tmp_path, "9.0.0")

    async def work() -> None:
        assert (await deployment.ask())["model"] == f"viewcount:{FIRST}"
        done = await deployment.versions.activate("viewcount", "9.0.0")
        assert (done.version, done.previous) == ("9.0.0", FIRST)
        assert done.comparison is not None
        assert (done.comparison.compared, done.comparison.changed, done.comparison.largest_difference) == (16, 0, 0.0)
        assert (await deployment.ask())["model"] == "viewcount:9.0.0"
        assert active_versions.read_active() == {"viewcount": active_versions.ActiveVersion("9.0.0", FIRST)}
        assert (
            deployment.gateway.find("viewcount").digest.decode()
            == done.digest
            == deployment.store["9.0.0"].manifest.digest
        )

        again = await deployment.versions.activate("viewcount", "9.0.0")
        assert (again.previous, again.comparison) == (FIRST, None)

        back = await deployment.versions.roll_back("viewcount")
        assert (back.version, back.previous) == (FIRST, "9.0.0")
        assert (await deployment.ask())["model"] == f"viewcount:{FIRST}"
        assert (await deployment.versions.roll_back("viewcount")).version == "9.0.0"

    run(work)


def test_requests_under_way_are_the_old_versions(deployment: Deployment, tmp_path: Path) -> None:
    """What was asked before the switch is answered by the version that was asked; then that one is let go."""
    deployment.store["9.0.0"] = version(tmp_path, "9.0.0")

    async def work() -> None:
        old = deployment.gateway.find("viewcount")
        gone = weakref.ref(old)
        asked = asyncio.create_task(deployment.gateway.answer(old, BODY))
        await deployment.versions.activate("viewcount", "9.0.0")
        del old
        assert msgspec.json.decode(await asked)["model"] == f"viewcount:{FIRST}"
        del asked
        await asyncio.sleep(0.01)
        gc.collect()
        assert gone() is None
        assert deployment.lanes.shares == [deployment.gateway.find("viewcount").share]

    run(work)


@pytest.mark.parametrize(
    ("flaw", "message"),
    [
        ("missing", "viewcount:9.0.0 is not in the model store"),
        ("damaged", "the artifact must not be served"),
        ("other task", "viewcount:9.0.0 is of another family or task"),
        ("other tensors", "the artifact must not be served"),
        ("fails", "the new version fails where the old one answers"),
        ("read-only", "the choice cannot be written down: No space left on device"),
    ],
)
def test_the_old_one_goes_on(
    deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flaw: str, message: str
) -> None:
    """A version that must not go live changes nothing."""
    changes: dict[str, Any] = {"task": "other"} if flaw == "other task" else {}
    if flaw != "missing":
        deployment.store["9.0.0"] = made = version(tmp_path, "9.0.0", **changes)
        damage(made, flaw)
    if flaw == "read-only":
        monkeypatch.setattr(rollout, "write_active", full)

    async def work() -> None:
        if flaw == "fails":
            bring = deployment.backend.load

            async def broken(model: ServedModel) -> Any:
                endpoint = await bring(model)
                endpoint.predictor = spoilt(endpoint.predictor)
                return endpoint

            monkeypatch.setattr(deployment.backend, "load", broken)
        before = deployment.gateway.find("viewcount")
        with pytest.raises(HttpError) as refused:
            await deployment.versions.activate("viewcount", "9.0.0")
        assert str(refused.value) == message
        assert isinstance(refused.value, UnknownVersion if flaw == "missing" else ActivationRefused)
        assert deployment.gateway.find("viewcount") is before
        assert active_versions.read_active() == {}
        assert (await deployment.ask())["model"] == f"viewcount:{FIRST}"

    run(work)


def damage(made: ServedModel, flaw: str) -> None:
    if flaw == "damaged":
        content = bytearray((made.folder / MODEL_FILE).read_bytes())
        content[len(content) // 2] ^= 1
        (made.folder / MODEL_FILE).write_bytes(content)
    if flaw == "other tensors":
        outputs = [replace(one, name="other") for one in made.manifest.outputs]
        (made.folder / MANIFEST_FILE).write_bytes(to_bytes(replace(made.manifest, outputs=outputs)))


def full(_: Any) -> None:
    raise OSError(28, "No space left on device")


def spoilt(predictor: Any) -> Any:
    """Return the same predictor, whose every output is not a number."""

    def nothing(feeds: Any, names: list[str]) -> Any:
        return {name: np.full_like(values, np.nan) for name, values in predictor.run(feeds, names).items()}

    return dataclasses.replace(predictor, run=nothing)


def test_pinned_and_unknown(deployment: Deployment) -> None:
    """A model whose version the settings name is not changed, one that is not served is not known."""

    async def work() -> None:
        with pytest.raises(UnknownModel):
            await deployment.versions.activate("nothing", "1.0.0")
        with pytest.raises(UnknownVersion, match="no other version of viewcount has been live"):
            await deployment.versions.roll_back("viewcount")
        deployment.versions.pinned = frozenset(("viewcount",))
        with pytest.raises(ActivationRefused, match="LECTERN_MODELS names the version of viewcount"):
            await deployment.versions.activate("viewcount", "9.0.0")

    run(work)


def test_other_workers_follow(deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another worker wrote down is live here too, shortly after; a version that cannot be had changes nothing."""
    monkeypatch.setattr(rollout, "FOLLOW_SECONDS", 0.01)
    deployment.store["9.0.0"] = version(tmp_path, "9.0.0")

    async def work() -> None:
        following = asyncio.create_task(deployment.versions.follow())
        active_versions.write_active(
            {
                "viewcount": active_versions.ActiveVersion("8.0.0", FIRST),
                "unserved": active_versions.ActiveVersion("1", "2"),
            }
        )
        await asyncio.sleep(0.1)
        assert (await deployment.ask())["model"] == f"viewcount:{FIRST}"
        active_versions.write_active({"viewcount": active_versions.ActiveVersion("9.0.0", FIRST)})
        while (await deployment.ask())["model"] != "viewcount:9.0.0":
            await asyncio.sleep(0.01)
        following.cancel()

    run(work)


def test_unloaded_and_loaded(deployment: Deployment, tmp_path: Path) -> None:
    """A model that was taken out of service is not served, its endpoint is let go, and it comes back as it is asked."""
    deployment.store["9.0.0"] = version(tmp_path, "9.0.0")

    async def work() -> None:
        gone = weakref.ref(deployment.gateway.find("viewcount"))
        asked = asyncio.create_task(deployment.ask())
        await asyncio.sleep(0)
        await deployment.versions.unload("viewcount")
        assert (await asked)["model"] == f"viewcount:{FIRST}"  # it was under way
        del asked
        with pytest.raises(UnknownModel):
            await deployment.ask()
        with pytest.raises(UnknownModel):
            await deployment.versions.unload("viewcount")
        await asyncio.sleep(0.01)
        gc.collect()
        assert gone() is None
        assert active_versions.read_active() == {
            "viewcount": active_versions.ActiveVersion(FIRST, FIRST, is_unloaded=True)
        }
        with pytest.raises(UnknownVersion):
            await deployment.versions.load("viewcount", "8.0.0")
        await deployment.versions.load("viewcount", "9.0.0")
        assert (await deployment.ask())["model"] == "viewcount:9.0.0"
        assert active_versions.read_active() == {"viewcount": active_versions.ActiveVersion("9.0.0", FIRST)}
        await deployment.versions.load("viewcount", FIRST)  # of one that serves
        assert (await deployment.ask())["model"] == f"viewcount:{FIRST}"

    run(work)


def test_other_workers_unload(deployment: Deployment) -> None:
    """What another worker unloaded, or this one before it was started again, is not served here; then it is again."""

    async def work() -> None:
        active_versions.write_active({"viewcount": active_versions.ActiveVersion(FIRST, FIRST, is_unloaded=True)})
        await deployment.versions.catch_up()
        with pytest.raises(UnknownModel):
            await deployment.ask()
        active_versions.write_active({"viewcount": active_versions.ActiveVersion(FIRST, FIRST)})
        await deployment.versions.catch_up()
        assert (await deployment.ask())["model"] == f"viewcount:{FIRST}"
        deployment.versions.pinned = frozenset(("viewcount",))
        active_versions.write_active({"viewcount": active_versions.ActiveVersion(FIRST, FIRST, is_unloaded=True)})
        await deployment.versions.catch_up()
        assert (await deployment.ask())["model"] == f"viewcount:{FIRST}"

    run(work)


def test_last_requests_are_tried(deployment: Deployment, tmp_path: Path) -> None:
    """Where requests are kept, a new version is tried on those; elsewhere nothing is kept."""
    deployment.store["9.0.0"] = version(tmp_path, "9.0.0")

    async def work() -> None:
        await deployment.ask()
        assert not deployment.gateway.find("viewcount").recent
        deployment.gateway.keeps_requests = True
        await deployment.versions.activate("viewcount", "9.0.0")
        await deployment.ask()
        done = await deployment.versions.activate("viewcount", FIRST)
        assert done.comparison is not None
        assert done.comparison.compared == 1

    run(work)


def test_what_changed(shipped_session: Callable[[str], Session]) -> None:
    """Labels that change are counted, numbers that move are measured, and too many changes are refused."""
    old = open_predictor(shipped_session("tagging"))
    same = compare(old, old, [])
    assert (same.compared, same.changed, same.largest_difference) == (16, 0, 0.0)
    assert differ({"a": "x", "b": np.float32([1, 2])}, {"a": "x", "b": np.float32([1, 5])}) == (False, 3.0)
    assert differ({"a": ["x"]}, {"a": ["y"]}) == (True, 0.0)
    assert differ({"a": np.zeros(2)}, {"a": np.zeros(3)}) == (True, 0.0)
    assert differ({"a": 1}, {"b": 1}) == (True, 0.0)
    changed = replace(same, changed=4)
    check_change_rate(changed, 0.25)
    with pytest.raises(ActivationRefused) as refused:
        check_change_rate(changed, 0.24)
    assert refused.value.faults[0].reason == "expected at most 3 changed answers of 16, found 4"


def test_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written is read; what was not is refused in words, and nothing half-written is ever there."""
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    assert active_versions.read_active() == {}
    active_versions.write_active({"image": active_versions.ActiveVersion("2.0.0", "1.0.0")})
    assert active_versions.read_active()["image"].version == "2.0.0"
    assert [file.name for file in tmp_path.iterdir()] == [active_versions.FILE]
    active_versions.path().write_text("{")
    with pytest.raises(SettingsError, match=r"lectern-live\.json: .*; mend it, or delete it"):
        active_versions.read_active()
