"""Answer requests about jobs: submit, look, download, cancel."""

import asyncio
import hashlib
import re
import secrets
import sys
from collections.abc import MutableMapping, Sequence
from time import time
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct

from models.errors import (
    ArtifactError,
    BodyTooLarge,
    Draining,
    Fault,
    Forbidden,
    HttpError,
    InvalidRequest,
    MethodNotAllowed,
    Overloaded,
    UnknownVersion,
    UnsupportedMediaType,
)  # fmt: skip
from service.auth.access import Access
from service.auth.api_keys import ADMIN, JOBS
from service.auth.callers import Caller
from service.inference.gateway import InferenceGateway
from service.jobs.download import Download
from service.jobs.job_request import JobRequest, UploadRequest, read_order, read_query
from service.jobs.paths import JobPaths, open_job_paths
from service.jobs.representation import to_json
from service.jobs.scheduler import JobScheduler, tell
from service.jobs.store import JobStore, StoredJob, same
from service.jobs.upload import receive_file
from service.messages.headers import Header, parse_request_headers
from service.messages.request_body import Receive, read_body
from service.messages.request_id import request_id
from service.messages.response import JSON, Response
from service.store.catalog import find_version

ROUTE = re.compile(r"/v1/jobs(?:/([0-9a-f]{32})(/result)?)?")
COMMAND = (sys.executable, "-m", "service.scoring")
MOST_UPLOADS = 64
METHODS = {None: "GET, HEAD, POST", "": "GET, HEAD, DELETE", "/result": "GET, HEAD"}
_KEY = re.compile(rb"[!-~]{1,255}")
Scope = MutableMapping[str, Any]


class Principal(Struct, frozen=True):
    """The caller of a request about jobs.

    Attributes:
        owner: The name of the key; empty without keys.
        sees: Whose jobs it may see; ``None``: everybody's.
        may_submit: Whether it may ask for a job.
    """

    owner: str = ""
    sees: str | None = None
    may_submit: bool = True


class Listing(Struct, frozen=True, forbid_unknown_fields=True):
    """The query of ``GET /v1/jobs``."""

    limit: int = 100
    before: str | None = None


def visitor(caller: Caller | None) -> Principal:
    """Return what a caller, who may ask for jobs, may do; without keys everybody may do everything."""
    if caller is None:
        return Principal()
    is_admin = bool(caller.roles & ADMIN)
    return Principal(caller.key.name, None if is_admin else caller.key.name, bool(caller.roles & JOBS))


class JobsApi:
    """The jobs of one gateway process, which it shares with all others of the same home.

    Attributes:
        scheduler: Stands for running them.
    """

    def __init__(
        self, gateway: InferenceGateway, access: Access | None, paths: JobPaths, command: Sequence[str] = COMMAND
    ) -> None:
        self.gateway, self.access, self.paths, self.settings = gateway, access, paths, gateway.settings
        self.store = JobStore(paths.store)
        self.scheduler = JobScheduler(self.store, paths, gateway.settings, command, lambda: gateway.is_draining)
        self._uploads = 0
        self._standing: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Stand for running the jobs from now on."""
        self._standing = asyncio.create_task(self.scheduler.campaign())

    async def end(self) -> None:
        """Pause what runs here."""
        self.scheduler.is_over = True
        if self._standing is not None:
            await asyncio.wait([self._standing])

    async def answer(self, scope: Scope, receive: Receive, match: "re.Match[str]") -> Response | Download:
        """Return the answer to one request whose caller may ask for jobs.

        Args:
            scope: ASGI's.
            receive: ASGI's.
            match: ``ROUTE`` matched with its path.

        Raises:
            HttpError: What is to be said instead.
            Disconnected: If the caller is gone.
        """
        identity, what = match[1], match[2] if match[1] is None else match[2] or ""
        method, headers = scope["method"], list(scope["headers"])
        if method not in METHODS[what].split(", "):
            raise MethodNotAllowed(f"only {METHODS[what]} is allowed here", METHODS[what])
        access = self.access
        who = visitor(None if access is None else access.caller(headers))
        if method == "POST":
            return await self._submit(scope, receive, who, headers)
        if identity is None:
            listing = _listing(_pairs(scope))
            found = await asyncio.to_thread(self.store.all, who.sees, listing.limit, listing.before)
            return _reply(200, to_json(found), headers, method)
        if method == "DELETE":
            return await self._cancel(identity, who, headers)
        job = await asyncio.to_thread(self.store.get, identity, who.sees)
        if what:
            return Download(job, self.paths.output(job), method, dict(headers))
        return _reply(200, to_json(job), headers, method)

    async def _cancel(self, identity: str, who: Principal, headers: list[Header]) -> Response:
        job = await asyncio.to_thread(self.store.cancel, identity, who.sees, time())
        if job is None:
            await asyncio.to_thread(self.paths.remove, identity)
            return _reply(204, b"", headers)
        return _reply(200, to_json(job), headers)

    # Submit.

    async def _submit(self, scope: Scope, receive: Receive, who: Principal, headers: list[Header]) -> Response:
        if not who.may_submit:
            raise Forbidden("this key may not ask for jobs")
        if self.gateway.is_draining:
            raise Draining("the service is stopping; ask another one")
        found = dict(headers)
        key = _key(found)
        if not scope.get("query_string"):
            parse_request_headers(headers, found, (JSON.decode(),), self.settings)
            return await self._order(
                read_order(await read_body(receive, self.gateway.body_memory, self.settings)), who, key, headers
            )
        try:
            return await self._take(receive, read_query(_pairs(scope), UploadRequest), who, key, headers)
        except HttpError as error:
            error.is_last = error.is_last or _has_body(found)  # the rest of it is never read
            raise

    async def _order(self, order: JobRequest, who: Principal, key: str | None, headers: list[Header]) -> Response:
        payload = hashlib.sha256(msgspec.json.encode(order, order="deterministic")).hexdigest()
        if key is not None and (known := await asyncio.to_thread(self.store.known, who.owner, key)) is not None:
            # Before anything else: neither the input nor the model need be there any more.
            return _accepted(same(known, payload), headers, is_new=False)
        await asyncio.to_thread(self.paths.find, order.input)
        job = await self._job(order, who, key)
        job = msgspec.structs.replace(job, payload=payload, input=order.input)
        return await self._write_down(job, headers)

    async def _take(
        self, receive: Receive, order: UploadRequest, who: Principal, key: str | None, headers: list[Header]
    ) -> Response:
        limit, patience = self.settings.jobs_upload_bytes, self.settings.body_timeout_seconds
        _check_upload(dict(headers), limit)
        job = msgspec.structs.replace(await self._job(order, who, key), suffix=order.format)
        if self._uploads >= MOST_UPLOADS:
            raise Overloaded("too many inputs are arriving, try again")
        self._uploads += 1
        is_kept = False
        try:
            await asyncio.to_thread(self.paths.make_folder, job.id)
            content = await receive_file(receive, self.paths.upload(job), limit, patience)
            asked = msgspec.json.encode(order, order="deterministic") + content.encode()
            job = msgspec.structs.replace(job, payload=hashlib.sha256(asked).hexdigest())
            answer = await self._write_down(job, headers)
            is_kept = answer.status == 202
            return answer
        finally:
            self._uploads -= 1
            if not is_kept:
                await asyncio.to_thread(self.paths.remove, job.id)

    async def _job(self, order: JobRequest | UploadRequest, who: Principal, key: str | None) -> StoredJob:
        """Return a new job; what was live when it was asked is what it will be scored by, whenever that is."""
        name, _, version = order.model.partition(":")
        live = self.gateway.find(name).manifest
        tag = order.model if version else live.tag
        if tag != live.tag:
            try:
                await asyncio.to_thread(find_version, tag)
            except ArtifactError as error:
                raise UnknownVersion(f"{tag} is not in the model store, or must not be served") from error
        return StoredJob(
            id=secrets.token_hex(16),
            owner=who.owner,
            key=key,
            payload="",
            model=tag,
            input=None,
            suffix="",
            output_format=order.output_format,
            options=order.options,
            created=time(),
        )

    async def _write_down(self, job: StoredJob, headers: list[Header]) -> Response:
        if job.input is not None:
            await asyncio.to_thread(self.paths.make_folder, job.id)
        try:
            written, is_new = await asyncio.to_thread(self.store.submit, job, self.settings.jobs_queued)
        except BaseException:
            await asyncio.to_thread(self.paths.remove, job.id)
            raise
        if is_new:
            tell("job_queued", job)
        else:
            await asyncio.to_thread(self.paths.remove, job.id)
        return _accepted(written, headers, is_new=is_new)


def open_jobs(gateway: InferenceGateway, access: Access | None) -> JobsApi | None:
    """Return the jobs of this process; ``None`` where there is no storage root.

    Raises:
        SettingsError: If the storage root is none.
    """
    return JobsApi(gateway, access, open_job_paths(gateway.settings)) if gateway.settings.jobs_root else None


def _pairs(scope: Scope) -> list[tuple[str, str]]:
    try:
        return parse_qsl(scope.get("query_string", b"").decode(), keep_blank_values=True, max_num_fields=32)
    except ValueError as error:  # too many, or not UTF-8
        raise _refused("query", "cannot be read") from error


def _listing(pairs: list[tuple[str, str]]) -> Listing:
    listing = read_query(pairs, Listing)
    if not 1 <= listing.limit <= 1000:
        raise _refused("limit", "expected 1 to 1000")
    return listing


def _key(found: dict[bytes, bytes]) -> str | None:
    given = found.get(b"idempotency-key")
    if given is None:
        return None
    if not _KEY.fullmatch(given.strip()):
        raise _refused("idempotency-key", "expected 1 to 255 visible ASCII characters")
    return given.strip().decode()


def _check_upload(found: dict[bytes, bytes], limit: int) -> None:
    if found.get(b"content-encoding", b"identity").strip().lower() != b"identity":
        raise UnsupportedMediaType("send a compressed file without content-encoding, and say so in `format`")
    length = found.get(b"content-length", b"0").strip()
    if length.isdigit() and int(length[:20]) > limit:
        raise BodyTooLarge(f"the input may have {limit} bytes")


def _has_body(found: dict[bytes, bytes]) -> bool:
    return b"transfer-encoding" in found or found.get(b"content-length", b"0").strip(b" 0") != b""


def _refused(field: str, reason: str) -> InvalidRequest:
    return InvalidRequest(faults=[Fault((field,), reason)])


def _accepted(job: StoredJob, headers: list[Header], *, is_new: bool) -> Response:
    answer = _reply(202 if is_new else 200, to_json(job), headers)
    answer.headers.append((b"location", b"/v1/jobs/" + job.id.encode()))
    return answer


def _reply(status: int, body: bytes, headers: list[Header], method: str = "GET") -> Response:
    told = [(b"content-type", JSON)] if status != 204 else []
    return Response(status, told, request_id(dict(headers)), b"" if method == "HEAD" else body)
