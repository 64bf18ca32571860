"""Every exception of the project.

A request's way, and which error sits on which arrow::

    bytes --MalformedRequest--> decoded --InvalidRequest--> valid --(encode is total)--> feeds
    feeds --RunnerFailed--> outputs --> response

The whole tree::

    LecternError
    ├── RequestError                 the caller can mend it
    │   ├── MalformedRequest         400  broken syntax
    │   ├── Unauthenticated          401  no key, or none that is known
    │   ├── Forbidden                403  a key that may not do this
    │   ├── UnknownModel             404
    │   ├── UnknownVersion           404
    │   ├── UnknownRoute             404
    │   ├── UnknownJob               404  none, or somebody else's
    │   ├── MethodNotAllowed         405
    │   ├── RequestTimeout           408  the body did not arrive in time
    │   ├── ActivationRefused        409  the version must not go live
    │   ├── JobUnfinished            409  a job without a result
    │   ├── BodyTooLarge             413
    │   ├── HeadersTooLarge          431
    │   ├── UnsupportedMediaType     415
    │   ├── RangeNotSatisfiable      416  no such bytes of a result
    │   ├── InvalidRequest           422  well-formed, but a value is not allowed
    │   ├── IdempotencyMismatch      422  a key that stands for another payload
    │   └── RateLimited              429  more often than this caller may
    ├── ServingError                 the service's own fault, or its limit
    │   ├── RunnerFailed             500
    │   ├── Overloaded               503
    │   ├── Draining                 503  the service is stopping
    │   ├── DeadlineExceeded         504
    │   └── StorageFull              507  the disk is full
    ├── ArtifactError                a model that must not be served
    │   ├── ArtifactMissing
    │   ├── ArtifactMismatch
    │   ├── ArtifactUntrusted
    │   └── CardMismatch
    ├── TrainingError                nothing was learned
    ├── CertificateError             export refuses to write
    ├── DeviceError                  the wanted execution provider cannot be had
    ├── DataError                    a dataset or a user's file
    ├── InputChanged                 a file that is not what it was when its job began
    ├── JobError                     a batch job cannot go on; what it has done stays done
    │   ├── TooManyErrors            more error rows than it was allowed
    │   ├── JobTooLarge              more rows or bytes than it was allowed
    │   ├── JobHeld                  another runner has it
    │   ├── StackChanged             other versions, or another machine, than it began with
    │   ├── NoSpace                  paused: nothing more can be written
    │   └── Interrupted              paused: somebody asked
    └── SettingsError                an environment variable
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a request: where (a path of keys and indices) and why."""

    loc: tuple[str | int, ...]
    reason: str

    def __str__(self) -> str:
        """Return both in a line: ``instances[0].horizon: expected `int` <= 28``."""
        steps = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.loc)
        return f"{steps.lstrip('.')}: {self.reason}" if steps else self.reason

    def inside(self, *prefix: str | int) -> "Fault":
        """Return the same fault seen from an enclosing document."""
        return Fault((*prefix, *self.loc), self.reason)


# What Python reads a byte as that is no UTF-8 (PEP 383), and halves of pairs.
_NO_TEXT = re.compile("[\ud800-\udfff]")


def printable(text: str) -> str:
    """Return a text with a sign in the place of what is no UTF-8, as in names of files that another system wrote."""
    return _NO_TEXT.sub("\ufffd", text)


class LecternError(Exception):
    """Root of everything the project raises on purpose."""


class HttpError(LecternError):
    """An error with a place in the protocol.

    Attributes:
        code: Stable machine-readable name.
        status: HTTP status.
        retryable: Whether the same request may succeed later.
        faults: What is wrong, one entry per place.
        is_last: Whether the connection closes, because the rest of the body is never read.
        refusal: Why nothing of it was begun, for whoever counts: no room, no time; empty for any other error.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    retryable: bool = False
    is_last: bool = False
    refusal: str = ""

    def __init__(self, message: str, faults: Sequence[Fault] = ()) -> None:
        super().__init__(message)
        self.faults = tuple(faults)

    def bare(self) -> Self:
        """Drop where and why it was raised: frames of reading a body, which would keep it and this error."""
        self.__cause__ = self.__context__ = None
        return self.with_traceback(None)


class RequestError(HttpError):
    """The caller can mend it."""


class MalformedRequest(RequestError):
    """The body is not what its content type says."""

    code = "malformed_request"
    status = 400


class Unauthenticated(RequestError):
    """No key was given, or none that is known."""

    code = "unauthenticated"
    status = 401


class Forbidden(RequestError):
    """The key is known, but may not do this."""

    code = "forbidden"
    status = 403


class UnknownModel(RequestError):
    """No such model is served."""

    code = "unknown_model"
    status = 404


class UnknownVersion(RequestError):
    """The model store does not hold such a version."""

    code = "unknown_version"
    status = 404


class UnknownRoute(RequestError):
    """No such path."""

    code = "unknown_route"
    status = 404


class UnknownJob(RequestError):
    """The caller has no such job."""

    code = "unknown_job"
    status = 404


class MethodNotAllowed(RequestError):
    """The path exists, the method does not."""

    code = "method_not_allowed"
    status = 405

    def __init__(self, message: str, allowed: str) -> None:
        super().__init__(message)
        self.allowed = allowed


class RequestTimeout(RequestError):
    """The body did not arrive in time."""

    code = "request_timeout"
    status = 408
    retryable = True
    is_last = True


class BodyTooLarge(RequestError):
    """The body is longer than the service reads."""

    code = "body_too_large"
    status = 413
    is_last = True


class HeadersTooLarge(RequestError):
    """The headers are longer than the service reads."""

    code = "headers_too_large"
    status = 431
    is_last = True


class UnsupportedMediaType(RequestError):
    """The content type is not one the model reads."""

    code = "unsupported_media_type"
    status = 415


class ActivationRefused(RequestError):
    """The version must not go live; the one that serves goes on."""

    code = "activation_refused"
    status = 409


class JobUnfinished(RequestError):
    """The job has no result: not yet, or because it failed; ``is_coming`` says which."""

    code = "job_unfinished"
    status = 409

    def __init__(self, message: str, *, is_coming: bool) -> None:
        super().__init__(message)
        self.retryable = is_coming


class RangeNotSatisfiable(RequestError):
    """The result has no such bytes.

    Attributes:
        size: Of the whole result, bytes.
    """

    code = "range_not_satisfiable"
    status = 416

    def __init__(self, message: str, size: int) -> None:
        super().__init__(message)
        self.size = size


class InvalidRequest(RequestError):
    """Well-formed, but a value is not allowed; without a message of its own it says the first fault."""

    code = "invalid_request"
    status = 422

    def __init__(self, message: str = "", faults: Sequence[Fault] = ()) -> None:
        if not message and faults:
            more = f"; {len(faults) - 1} more in errors" if len(faults) > 1 else ""
            message = f"{faults[0]}{more}"
        super().__init__(message, faults)


class IdempotencyMismatch(RequestError):
    """The idempotency key stands for another payload."""

    code = "idempotency_mismatch"
    status = 422


class RateLimited(RequestError):
    """This caller asks more often than it may.

    Attributes:
        wait_seconds: Until it may ask again.
    """

    code = "rate_limited"
    status = 429
    retryable = True
    refusal = "rate_limited"

    def __init__(self, message: str, wait_seconds: float) -> None:
        super().__init__(message)
        self.wait_seconds = wait_seconds


class ServingError(HttpError):
    """The service's own fault, or its limit."""


class RunnerFailed(ServingError):
    """The model failed on a valid input."""

    code = "runner_failed"
    status = 500


class Overloaded(ServingError):
    """The queue is full."""

    code = "overloaded"
    status = 503
    retryable = True
    refusal = "queue_full"


class Draining(ServingError):
    """The service is stopping."""

    code = "draining"
    status = 503
    retryable = True
    is_last = True
    refusal = "draining"


class DeadlineExceeded(ServingError):
    """The answer would have come too late."""

    code = "deadline_exceeded"
    status = 504
    retryable = True


class StorageFull(ServingError):
    """The disk is full."""

    code = "storage_full"
    status = 507
    retryable = True


class ArtifactError(LecternError):
    """A model that must not be served."""


class ArtifactMissing(ArtifactError):
    """A file of the artifact is not there."""


class ArtifactMismatch(ArtifactError):
    """The bytes are not the ones the certificate was made for."""


class ArtifactUntrusted(ArtifactError):
    """No key that is trusted here signed its certificate."""


class CardMismatch(ArtifactError):
    """The artifact promises other tensors than the card."""


class TrainingError(LecternError):
    """Nothing was learned."""


class CertificateError(LecternError):
    """Export refuses to write: a check of the certificate failed."""


class DeviceError(LecternError):
    """The wanted execution provider cannot be had."""


class DataError(LecternError):
    """A dataset or a user's file cannot be used.

    Attributes:
        expected: What could be.
    """

    def __init__(self, file: Path | str, *, found: str, expected: str, row: int | None = None) -> None:
        self.expected = expected
        location = f"{file}, row {row}" if row is not None else f"{file}"
        super().__init__(printable(f"{location}: found {found}, expected {expected}"))


class InputChanged(LecternError):
    """A job's input is no longer what it was when it was cut into parts."""

    code: ClassVar[str] = "input_changed"


class JobError(LecternError):
    """A batch job cannot go on; what it has done stays done.

    Attributes:
        code: Stable machine-readable name.
    """

    code: ClassVar[str] = "job_failed"


class TooManyErrors(JobError):
    """More rows were error rows than the job was allowed."""

    code = "too_many_errors"


class JobTooLarge(JobError):
    """The job has more rows, or its parts more bytes, than it was allowed."""

    code = "too_large"


class JobHeld(JobError):
    """Another runner works on this job."""

    code = "job_held"


class StackChanged(JobError):
    """The job began with other versions, or on another machine; the bytes may differ."""

    code = "stack_changed"


class NoSpace(JobError):
    """Nothing more can be written until there is room; the job is paused."""

    code = "paused_no_space"


class Interrupted(JobError):
    """Somebody asked the job to pause."""

    code = "interrupted"


class SettingsError(LecternError):
    """An environment variable cannot be used."""
