"""Who may ask for jobs, and whose they see: every route by every method with every kind of key."""

from pathlib import Path
from typing import Any

import pytest

from service.auth.api_keys import line_of

pytestmark = pytest.mark.timeout(60)
ROLES = ("jobs", "admin", "predict", "metrics", "predict,metrics", "admin,jobs", "other jobs")
KEYS = {role: f"lectern_{number}" + "k" * 42 for number, role in enumerate(ROLES)}
LINES = ";".join(
    line_of(key, role.replace(",", "-").replace(" ", "-"), [role.removeprefix("other ")]) for role, key in KEYS.items()
)
NOBODY = "0" * 32
PATHS = ("/v1/jobs", f"/v1/jobs/{NOBODY}", f"/v1/jobs/{NOBODY}/result", "/v1/jobs/", "/v1/jobs/x")
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE")


def bearer(role: str) -> bytes:
    return b"authorization: Bearer " + KEYS[role].encode()


@pytest.mark.parametrize("is_wire", [True, False])
def test_matrix(is_wire: bool, run: Any, serve: Any, root: Path, api: Any) -> None:
    """Without a key 401, with another role 403, whatever is asked; with the role what an open service says."""

    async def ask(live: Any, *headers: bytes) -> dict[tuple[str, str], Any]:
        found = {}
        for path in PATHS:
            for method in METHODS:
                client = await live.connect()
                await client.send(api.request(method, path, b"", b"x-request-id: r", *headers))
                found[path, method] = await client.read(is_head=method == "HEAD")
                client.close()
        return found

    async def work() -> None:
        async with serve(wire=is_wire, jobs_root=str(root)) as live:
            unguarded = await ask(live)
        async with serve(wire=is_wire, jobs_root=str(root), keys=LINES) as live:
            for answer in (await ask(live)).values():
                assert (answer.status, answer["www-authenticate"]) == (401, "Bearer")
            for role in ("predict", "metrics", "predict,metrics"):
                assert {answer.status for answer in (await ask(live, bearer(role))).values()} == {403}
            assert await ask(live, bearer("jobs")) == unguarded
            administered = await ask(live, bearer("admin"))
            forbidden = {asked for asked, answer in administered.items() if answer != unguarded[asked]}
            assert forbidden == {("/v1/jobs", "POST")}
            assert administered["/v1/jobs", "POST"].status == 403

    run(work)


def test_off(run: Any, serve: Any, root: Path, api: Any) -> None:
    """Where there are no jobs a key for them is let in nowhere, and the paths are as unknown as any other."""

    async def work() -> None:
        async with serve(keys=LINES) as live:
            client = await live.connect()
            assert (await client.ask(api.request("GET", "/v1/jobs", b"", bearer("jobs")))).status == 403
            api.problem(await client.ask(api.request("GET", "/v1/jobs", b"", bearer("predict"))), 404, "unknown_route")

    run(work)


def test_refused_before_the_body(run: Any, serve: Any, root: Path, api: Any) -> None:
    """Who may not ask for a job sends no file."""

    async def work() -> None:
        async with serve(jobs_root=str(root), keys=LINES) as live:
            for headers, status in (((), 401), ((bearer("predict"),), 403), ((bearer("admin"),), 403)):
                client = await live.connect()
                told = (*headers, b"content-length: 1000")
                answer = await client.ask(api.request("POST", "/v1/jobs?model=double&format=csv", b"", *told))
                assert answer.status == status
                assert api.folders(live) == 0

    run(work)


def test_own_jobs(run: Any, serve: Any, root: Path, api: Any) -> None:
    """A caller sees, downloads, cancels and lists its own jobs; to others they do not exist, but to an admin."""

    async def work() -> None:
        async with serve(jobs_root=str(root), keys=LINES) as live:
            client = await live.connect()

            async def ask(method: str, path: str, role: str) -> Any:
                return await client.ask(api.request(method, path, b"", bearer(role)))

            mine = (await client.ask(api.order(bearer("jobs"), b"idempotency-key: k"))).json
            same = await client.ask(api.order(bearer("other jobs"), b"idempotency-key: k", input="sub/rows.csv"))
            assert same.status == 202  # somebody else's key is another key
            both = (await client.ask(api.order(bearer("admin,jobs")))).json
            assert mine["owner"] == "jobs"
            position = f"/v1/jobs/{mine['id']}"
            api.done(live, mine["id"], b"result")
            for path in (position, f"{position}/result"):
                assert (await ask("GET", path, "jobs")).status == 200
                assert (await ask("GET", path, "admin")).status == 200
                unknown = api.problem(await ask("GET", path, "other jobs"), 404, "unknown_job")
                nobody = api.problem(
                    await ask("GET", path.replace(mine["id"], NOBODY), "other jobs"), 404, "unknown_job"
                )
                assert unknown["error"] == nobody["error"]
            api.problem(await ask("DELETE", position, "other jobs"), 404, "unknown_job")
            api.problem(await ask("GET", f"/v1/jobs?before={mine['id']}", "other jobs"), 404, "unknown_job")
            listed = {
                role: [page["id"] for page in (await ask("GET", "/v1/jobs", role)).json["jobs"]]
                for role in ("jobs", "other jobs", "admin", "admin,jobs")
            }
            everybody = [both["id"], same.json["id"], mine["id"]]
            assert listed == {
                "jobs": [mine["id"]],
                "other jobs": [same.json["id"]],
                "admin": everybody,
                "admin,jobs": everybody,
            }
            assert (await ask("DELETE", f"/v1/jobs/{same.json['id']}", "admin")).json["state"] == "cancelled"

    run(work)
