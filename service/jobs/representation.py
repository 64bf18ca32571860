"""Represent a job to callers: as JSON, and in the OpenAPI document."""

from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct

from service.jobs.job_request import JobRequest, OutputFormat, RequestOptions, UploadRequest
from service.jobs.store import JobState, StoredJob


class OutputRepresentation(Struct, frozen=True):
    """A result."""

    bytes: int
    sha256: str


class JobRepresentation(Struct, frozen=True, kw_only=True):
    """A job."""

    id: str
    state: JobState
    owner: str
    model: str
    input: str | None
    output_format: OutputFormat
    options: RequestOptions
    rows: int
    rows_total: int | None
    errors: int
    rows_per_second: float | None
    seconds_left: float | None
    code: str | None
    reason: str | None
    output: OutputRepresentation | None
    notes: tuple[str, ...]
    created: str
    started: str | None
    ended: str | None


class JobList(Struct, frozen=True):
    """Jobs, newest first."""

    jobs: list[JobRepresentation]


def page(job: StoredJob) -> JobRepresentation:
    """Return what a caller may know of a job."""
    is_there = job.output_bytes is not None and job.output_sha256 is not None
    return JobRepresentation(
        id=job.id,
        state=job.state,
        owner=job.owner,
        model=job.model,
        input=job.input,
        output_format=job.output_format,
        options=job.options,
        rows=job.rows,
        rows_total=job.rows_total,
        errors=job.errors,
        rows_per_second=job.rows_per_second,
        seconds_left=job.seconds_left,
        code=job.code,
        reason=job.reason,
        output=OutputRepresentation(job.output_bytes or 0, job.output_sha256 or "") if is_there else None,
        notes=job.notes,
        created=_time(job.created) or "",
        started=_time(job.started),
        ended=_time(job.ended),
    )


def to_json(found: StoredJob | list[StoredJob]) -> bytes:
    """Return one job, or a list of them."""
    return msgspec.json.encode(JobList([page(job) for job in found]) if isinstance(found, list) else page(found))


def _time(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# OpenAPI

_ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"}}
_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
    "description": "The same key and payload is the same job, however often it is asked.",
}
_RANGE = {"name": "Range", "in": "header", "schema": {"type": "string"}, "example": "bytes=0-1023"}
_IF_RANGE = {"name": "If-Range", "in": "header", "schema": {"type": "string"}, "description": "The `ETag`."}
_LIST = [
    {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}},
    {"name": "before", "in": "query", "schema": _ID["schema"], "description": "Only jobs older than this one."},
]
_TEXTS = {
    400: "The body is not JSON.",
    404: "No such model or version, or no such job of this caller.",
    408: "The body did not arrive in time.",
    409: "The job has no result.",
    413: "The body is too long.",
    415: "The content type is not application/json, or the body is compressed.",
    416: "The result has no such bytes.",
    422: "A value is not allowed, or the idempotency key was used for another payload.",
    503: "As many jobs are waiting as may; try again after `Retry-After` seconds.",
    507: "The disk is full.",
}


def paths(problem: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the OpenAPI paths of jobs, and the schemas they name.

    Args:
        problem: The content of an error answer.
    """
    types = [JobRequest, UploadRequest, JobRepresentation, JobList]
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    order, _, one, many = schemas

    def answers(statuses: tuple[int, ...], **good: Any) -> dict[str, Any]:
        told = {str(status): {"description": _TEXTS[status], "content": problem} for status in statuses}
        return {status.removeprefix("_"): value for status, value in good.items()} | told

    def shown(text: str, schema: dict[str, Any]) -> dict[str, Any]:
        return {"description": text, "content": {"application/json": {"schema": schema}}}

    def operation(summary: str, parameters: list[Any], responses: dict[str, Any]) -> dict[str, Any]:
        return {"summary": summary, "tags": ["jobs"], "parameters": parameters, "responses": responses}

    upload = components.pop("UploadRequest")["properties"]
    query = [{"name": name, "in": "query", "schema": schema} for name, schema in upload.items()]
    binary = {"schema": {"type": "string", "format": "binary"}}
    file = {"description": "The result, or a part of it.", "content": {"application/octet-stream": binary}}
    asked = {"application/json": {"schema": order}, "application/octet-stream": binary}
    submit = operation(
        "Score a file: one below the storage root (JSON), or the body itself (with `model` and `format`)",
        [_KEY, *query],
        answers(
            (400, 404, 408, 413, 415, 422, 503, 507),
            _200=shown("The job that this key stands for.", one),
            _202=shown("The new job; `Location` says where it is.", one),
        ),
    )
    submit["requestBody"] = {"required": True, "content": asked}
    result_answers = answers((404, 409, 416), _200=file, _206=file)
    found: dict[str, Any] = {
        "/v1/jobs": {
            "get": operation("The caller's jobs, newest first", _LIST, answers((404, 422), _200=shown("Jobs.", many))),
            "post": submit,
        },
        "/v1/jobs/{id}": {
            "get": operation("A job", [_ID], answers((404,), _200=shown("The job.", one))),
            "delete": operation(
                "Cancel a job; forget one that has ended",
                [_ID],
                answers((404, 507), _200=shown("It is cancelled.", one), _204={"description": "It is forgotten."}),
            ),
        },
        "/v1/jobs/{id}/result": {"get": operation("The result", [_ID, _RANGE, _IF_RANGE], result_answers)},
    }
    return found, components
