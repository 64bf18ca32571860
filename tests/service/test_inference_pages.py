"""The Open Inference Protocol's pages, statistics and repository, and how its requests are refused for want of room."""

import json
from typing import Any

import httpx
import pytest

from models.errors import UnknownModel
from service.auth.api_keys import line_of
from service.oip import metadata_api

ADMIN = "lectern_" + "a" * 43
VIEWS = json.dumps({"inputs": [{"name": "views", "shape": [1, 56], "datatype": "FP32", "data": [100] * 56}]}).encode()
NUMBER = b'{"inputs":[{"name":"instance","shape":[1,1],"datatype":"BYTES","data":["5"]}]}'


def infer(body: bytes = NUMBER, model: str = "double", *headers: bytes) -> bytes:
    lines = (b"POST /v2/models/%b/infer HTTP/1.1" % model.encode(), b"host: x", b"content-length: %d" % len(body))
    return b"\r\n".join((*lines, *headers, b"", body))


def get(path: str, method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n".encode()


async def page(live: Any, path: str, method: str = "GET") -> Any:
    """Return a page that must be there."""
    client = await live.connect()
    answer = await client.ask(get(path, method))
    assert answer.status == 200, answer
    return answer.json if answer.body else None


def test_what_the_service_and_its_models_are(run: Any, serve: Any) -> None:
    """As the protocol has it: names, types and shapes, with -1 for the axes that are open."""

    async def work() -> None:
        async with serve() as live:
            server = await page(live, "/v2")
            assert server["name"] == "lectern"
            assert "binary_tensor_data" in server["extensions"]
            assert "model_repository" not in server["extensions"]
            assert await page(live, "/v2/health/live") is None
            assert await page(live, "/v2/models/viewcount/ready") is None
            told = await page(live, "/v2/models/viewcount")
            assert (told["name"], told["platform"]) == ("viewcount", "onnx_onnxv1")
            assert told["inputs"] == [{"name": "views", "datatype": "FP32", "shape": [-1, 56]}]
            names = [output["name"] for output in told["outputs"]]
            assert names == ["forecast", "lower", "upper", "prediction"]
            assert await page(live, f"/v2/models/viewcount/versions/{told['versions'][0]}") == told
            config = await page(live, "/v2/models/viewcount/config")
            assert config["max_batch_size"] == 1024
            assert config["input"] == [{"name": "views", "data_type": "TYPE_FP32", "dims": [56]}]
            assert "dynamic_batching" in config
            double = await page(live, "/v2/models/double")  # whose card says nothing of tensors
            assert double["inputs"] == [{"name": "instance", "datatype": "BYTES", "shape": [-1, 1]}]

    run(work)


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/v2/models/nobody", "GET", 404),
        ("/v2/models/nobody/ready", "GET", 404),
        ("/v2/models/nobody/config", "GET", 404),
        ("/v2/models/double/versions/7/ready", "GET", 404),
        ("/v2/models/double/trace", "GET", 404),
        ("/v2/repository/models/double/unload", "POST", 404),  # no key may do that here
        ("/v2x", "GET", 404),
        ("/v2", "POST", 405),
        ("/v2/models/stats", "POST", 405),
        ("/v2/repository/index", "GET", 405),
        ("/v2/models/double/infer", "GET", 405),
    ],
)
def test_what_is_not_there(run: Any, serve: Any, path: str, method: str, status: int) -> None:
    """Refused, with a reason in ``error``."""

    async def work() -> None:
        async with serve() as live:
            client = await live.connect()
            answer = await client.ask(get(path, method))
            assert answer.status == status
            assert isinstance(answer.json["error"], str)

    run(work)


def test_ready_is_what_readyz_is(run: Any, serve: Any) -> None:
    """BentoML's word while it serves, 503 from the moment that it stops; then predictions are refused as well."""

    async def work() -> None:
        async with serve() as live:
            client = await live.connect()
            assert (await client.ask(get("/v2/health/ready"))).body == b"inner"
            live.front.gateway.is_draining = True
            assert (await client.ask(get("/v2/health/ready"))).json["code"] == "draining"
            client = await live.connect()
            answer = await client.ask(infer())
            assert (answer.status, answer.json["code"], answer["connection"]) == (503, "draining", "close")
            live.front.gateway.is_draining = False

    run(work)


def test_statistics_are_the_metrics(run: Any, serve: Any) -> None:
    """Every request is counted once by the one ledger, whichever protocol it came by."""

    async def work() -> None:
        for is_wire in (True, False):
            async with serve(wire=is_wire) as live:
                (before,) = (await page(live, "/v2/models/double/stats"))["model_stats"]
                client = await live.connect()
                two = NUMBER.replace(b"[1,1]", b"[2,1]").replace(b'"5"', b'"5","6"')
                for body, status in ((NUMBER, 200), (two, 200), (b"{", 400), (NUMBER.replace(b"1,1", b"3,1"), 400)):
                    assert (await client.ask(infer(body))).status == status
                assert await live.counted() == {"ok": 2, "malformed_request": 1, "invalid_request": 1}
                stats = (await page(live, "/v2/models/stats"))["model_stats"]
                (after,) = [one for one in stats if one["name"] == "double"]
                assert after["inference_count"] == before["inference_count"] + 3
                assert after["execution_count"] == before["execution_count"] + 2
                assert after["last_inference"] > before["last_inference"]
                found, old = after["inference_stats"], before["inference_stats"]
                assert found["success"]["count"] == old["success"]["count"] + 2
                assert found["fail"]["count"] == old["fail"]["count"] + 2
                for stage in ("queue", "compute_input", "compute_infer", "compute_output"):
                    assert found[stage]["count"] == old[stage]["count"] + 2
                    assert found[stage]["ns"] >= old[stage]["ns"]
                assert found.keys() == {
                    "success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit",
                    "cache_miss",
                }  # fmt: skip

    run(work)


def test_refused_for_want_of_room_as_in_v1(run: Any, serve: Any) -> None:
    """429 over the rate and 503 with a full queue, counted as what they are."""

    async def work() -> None:
        async with serve(requests_per_second=0.001) as live:
            client = await live.connect()
            assert (await client.ask(infer())).status == 200
            refusal = await client.ask(infer())
            assert (refusal.status, refusal.json["code"]) == (429, "rate_limited")
            assert await live.counted() == {"ok": 1, "rate_limited": 1}
        async with serve(queue_limit=1) as live:
            await live.plug()
            first, second = await live.connect(), await live.connect()
            await first.send(infer())
            await live.until(lambda: live.endpoint.batcher.queue.backlog == 1)
            refusal = await second.ask(infer())
            assert (refusal.status, refusal.json["code"]) == (503, "overloaded")
            live.model.gate.set()
            answer = await first.read()
            assert json.loads(answer.json["outputs"][0]["data"][0]) == {"y": 11}

    run(work)


def test_both_protocols_share_a_micro_batch(run: Any, serve: Any, post: Any) -> None:
    """What came by /v1 and by /v2 while the lane was taken runs together, and each gets its own answer in its words."""

    async def work() -> None:
        async with serve() as live:
            before = await page(live, "/v2/models/double/stats")
            await live.plug()
            old, new = await live.connect(), await live.connect()
            await old.send(post(7))
            await new.send(infer())
            await live.until(lambda: live.endpoint.batcher.queue.backlog == 2)
            live.model.gate.set()
            assert (await old.read()).y == 15
            answer = await new.read()
            assert json.loads(answer.json["outputs"][0]["data"][0]) == {"y": 11}
            after = await page(live, "/v2/models/double/stats")
            runs = [one["model_stats"][0]["execution_count"] for one in (before, after)]
            assert runs[1] - runs[0] == 2  # that of the plug, and one for both

    run(work)


class Repository:
    """Versions that remember what was asked of them."""

    def __init__(self, gateway: Any) -> None:
        self.gateway, self.unloaded, self.asked = gateway, {"gone": None}, list[Any]()

    async def load(self, name: str, version: str) -> None:
        self.asked.append(("load", name, version))

    async def unload(self, name: str) -> None:
        self.asked.append(("unload", name))


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model store."""
    held = {"double": ["1.0.0", "2.0.0"], "gone": ["3.0.0"]}
    monkeypatch.setattr(metadata_api, "stored_versions", lambda names: {name: held.get(name, []) for name in names})


@pytest.mark.usefixtures("stored")
def test_the_repository_is_the_store(run: Any, serve: Any) -> None:
    """What serves is ready, what else the store has is not; loading takes the newest, or the version that is named."""

    async def work() -> None:
        async with serve(keys=line_of(ADMIN, "admin", ["admin"])) as live:
            repository = Repository(live.front.gateway)
            live.front.versions = lambda: repository
            where = f"http://{live.address[0]}:{live.address[1]}"
            async with httpx.AsyncClient(base_url=where, headers={"x-api-key": ADMIN}, trust_env=False) as client:
                assert "model_repository" in (await client.get("/v2")).json()["extensions"]
                index = (await client.post("/v2/repository/index")).json()
                found = {(one["name"], one["version"]): one["state"] for one in index}
                assert (found["double", "1.0.0"], found["double", "2.0.0"]) == ("READY", "UNAVAILABLE")
                assert found["gone", "3.0.0"] == "UNAVAILABLE"
                ready = (await client.post("/v2/repository/index", json={"ready": True})).json()
                assert {one["state"] for one in ready} == {"READY"}
                double = "/v2/repository/models/double"
                assert (await client.post(f"{double}/load")).status_code == 200
                assert (await client.post(f"{double}/load", json={"parameters": {"version": "1.0.0"}})).is_success
                assert (await client.post(f"{double}/unload", json={"parameters": {}})).is_success
                assert repository.asked == [
                    ("load", "double", "2.0.0"),
                    ("load", "double", "1.0.0"),
                    ("unload", "double"),
                ]
                assert (await client.post("/v2/repository/models/nobody/load")).status_code == 404
                for body in (b"{", b'{"parameters":{"config":"{}"}}', b'{"parameters":{"version":"../x"}}', b"[]"):
                    refusal = await client.post(f"{double}/load", content=body)
                    assert refusal.status_code == 400
                    assert refusal.json()["error"]

    run(work)


def test_an_unloaded_model_is_not_there(run: Any, serve: Any) -> None:
    """404 by both protocols, on the wire and above it, as if it had never been."""

    async def work() -> None:
        for is_wire in (True, False):
            async with serve(wire=is_wire) as live:
                gateway = live.front.gateway
                client = await live.connect()
                assert (await client.ask(infer(VIEWS, "viewcount"))).status == 200
                del gateway.endpoints["viewcount"]
                assert (await client.ask(infer(VIEWS, "viewcount"))).status == 404
                assert (await client.ask(get("/v2/models/viewcount/ready"))).status == 404
                with pytest.raises(UnknownModel):
                    gateway.find("viewcount")

    run(work)
