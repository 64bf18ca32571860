"""Authorise callers: keys, roles and rates, checked before anything else is known of a request.

Without keys and without a rate there is no ``Access``, and everything is open. Once there is a key, or a file for them,
everything but the health pages needs one: what is not listed here is refused, not served.
"""

import logging
import os
import threading
from time import sleep
from typing import TypeAlias

from models.errors import Forbidden, HttpError, RateLimited, SettingsError, Unauthenticated
from models.small_files import read_small_file
from service.auth.api_keys import ADMIN, JOBS, METRICS, PREDICT, Key, check_unique, environment_keys, parse_keys
from service.auth.callers import KEYS_FILE_ERROR, Caller, KeyRing
from service.auth.rate_limit import AddressBuckets, TokenBucket
from service.messages.headers import MAX_DIGITS, Header
from service.settings import Settings
from service.telemetry.fast_values import MmapGauge

logger = logging.getLogger("lectern.access")

Client: TypeAlias = tuple[str, int] | None
Stamp: TypeAlias = tuple[int, int, int]

OPEN_ROUTES = frozenset(("/healthz", "/livez", "/readyz", "/v2/health/live", "/v2/health/ready"))
ADMIN_ROUTES = ("/v1/admin", "/v2/repository")
JOBS_ROUTES = "/v1/jobs"
LOCAL_HOSTS = ("127.0.0.1", "::1", "localhost")
LOOK_SECONDS = 1.0
MOST_FILE_BYTES = 2**20


class Access:
    """The callers of this process, and what each may do."""

    def __init__(self, settings: Settings) -> None:
        """Read every key.

        Raises:
            SettingsError: If one cannot be read.
        """
        rate = settings.requests_per_second
        self._rate, self._file, self._max_body_bytes = rate, settings.keys_file, settings.max_body_bytes
        self._has_jobs = bool(settings.jobs_root)
        self._ring: KeyRing | None = None
        self._addresses = AddressBuckets(rate) if rate is not None else None
        self._stamp: Stamp | None = None
        self._complaint = ""
        self._of_environment = environment_keys(settings)
        if settings.keys.strip() or self._file:
            text = ""
            if self._file:
                text, self._stamp = _read(self._file)
            self._use(text)

    @property
    def has_admin(self) -> bool:
        """Return whether any key may do what ``POST /v1/admin/...`` does; without one those routes are not there."""
        return any(key.roles & ADMIN for key in self.keys)

    @property
    def has_keys(self) -> bool:
        """Return whether a key is needed."""
        return self._ring is not None

    def needed(self, path: str) -> int:
        """Return the roles of which a caller must have one."""
        if path == "/metrics":
            return METRICS
        if path.endswith(("/predict", "/infer")):
            return PREDICT
        if path.startswith(ADMIN_ROUTES) and self.has_admin:
            return ADMIN
        if path.startswith(JOBS_ROUTES) and self._has_jobs:
            return JOBS | ADMIN
        return PREDICT | ADMIN

    def check(
        self, needed: int, headers: list[Header], found: dict[bytes, bytes], client: Client
    ) -> Caller | TokenBucket | None:
        """Whom this request has to ask for a token, if anybody.

        Args:
            needed: The roles of which the caller must have one.
            headers: Lower-case names and values, in order.
            found: The same by name.
            client: The connection's other end.

        Raises:
            Unauthenticated: Without exactly one known key, given once or alike in both headers.
            Forbidden: If the key may not do this.
        """
        ring = self._ring
        if ring is None:
            return None if self._addresses is None else self._addresses.bucket(client[0] if client else "")
        caller = ring.remember(found) if len(found) == len(headers) else None
        if caller is None:
            caller = ring.look_up(headers, found)
        if not caller.roles & needed:
            raise Forbidden("this key may not do this")
        return caller

    def caller(self, headers: list[Header]) -> Caller | None:
        """Return who sent a request that was let in; ``None`` where nobody needs a key."""
        return None if self._ring is None else self._ring.look_up(headers, dict(headers))

    def refuse(self, path: str, headers: list[Header], client: Client) -> HttpError | None:
        """Return why a request may not go on to ``path``; ``None`` when it may, and then it has been counted."""
        if path in OPEN_ROUTES:
            return None
        found = dict(headers)
        error: HttpError | None
        try:
            caller = self.check(self.needed(path), headers, found, client)
        except (Unauthenticated, Forbidden) as refusal:
            error = refusal.with_traceback(None)
            if isinstance(refusal, Forbidden) and (known := self.caller(headers)) is not None:
                known.forbid()
        else:
            error = None if caller is None else caller.refusal()
        if error is not None:
            error.is_last = self._is_last(error, found)
        return error

    def _is_last(self, error: HttpError, found: dict[bytes, bytes]) -> bool:
        """Whether to hang up rather than to read a refused body; a known caller's connection is worth a short one."""
        if b"transfer-encoding" in found:
            return True
        length = found.get(b"content-length", b"0").strip()
        if isinstance(error, RateLimited):
            return len(length) > MAX_DIGITS or int(length) > self._max_body_bytes
        return length.strip(b"0") != b""

    # Reading the file again.

    def watch(self) -> "Access":
        """Look after the file from now on, in a thread: a slow disk shall hold up no request."""
        if self._file:
            threading.Thread(target=self._watch, name="lectern-keys", daemon=True).start()
        return self

    def _watch(self) -> None:
        while True:
            sleep(LOOK_SECONDS)
            try:
                self.reload()
            except Exception:  # the process border: a dead thread would keep withdrawn keys for ever
                logger.exception("the keys of %s were not read", self._file)

    def reload(self) -> bool:
        """Use the file's keys if it has changed, and say whether it had.

        A file that is missing or broken leaves the keys as they were, and is complained of once.
        """
        try:
            if self._stamp == _stamp(os.stat(self._file)):
                return False
            text, self._stamp = _read(self._file)
            self._use(text)
        except (OSError, SettingsError) as error:
            complaint = str(error)
            if isinstance(error, OSError):
                self._stamp = None  # it is read when it is back, even if it is the same
            if complaint != self._complaint:
                logger.error("%s; the keys read before stay", complaint)
            self._complaint = complaint
            MmapGauge(KEYS_FILE_ERROR).set(1.0)
            return False
        self._complaint = ""
        MmapGauge(KEYS_FILE_ERROR).set(0.0)
        self.tell()
        return True

    def tell(self) -> None:
        """Log whose keys hold."""
        logger.info("keys: %s", ", ".join(key.name for key in self.keys) or "none, so nobody may call")

    @property
    def keys(self) -> list[Key]:
        """Return every key."""
        return [] if self._ring is None else [caller.key for caller in self._ring.callers.values()]

    def _use(self, text: str) -> None:
        keys = [*self._of_environment, *parse_keys(text, self._file)]
        check_unique(keys, f"LECTERN_KEYS and {self._file}")
        before = {} if self._ring is None else self._ring.callers
        callers = {}
        for key in keys:
            old = before.get(key.digest)
            # Who asked too often before the file changed is not forgiven by it.
            callers[key.digest] = old if old is not None and old.key == key else Caller(key, self._bucket(key))
        self._ring = KeyRing(callers)

    def _bucket(self, key: Key) -> TokenBucket | None:
        rate = key.requests_per_second or self._rate
        return None if rate is None else TokenBucket(rate, key.burst)


def open_access(settings: Settings) -> Access | None:
    """Return who may call, by these settings; ``None`` when everybody may do everything.

    Raises:
        SettingsError: If the keys cannot be read.
    """
    access = Access(settings)
    if access.has_keys:
        access.tell()
    elif settings.host not in LOCAL_HOSTS:
        logger.warning("whoever reaches %s may call: there are no LECTERN_KEYS and no LECTERN_KEYS_FILE", settings.host)
    is_open = not access.has_keys and settings.requests_per_second is None
    return None if is_open else access.watch()


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_mtime_ns, status.st_ino, status.st_size


def _read(file: str) -> tuple[str, Stamp]:
    """Return the file's text, and its stamp from before: what is written meanwhile is read the next time.

    Raises:
        SettingsError: If it cannot be read.
    """
    try:
        content, status = read_small_file(file, MOST_FILE_BYTES)
        return content.decode("utf-8-sig"), _stamp(status)  # editors may put a byte order mark before it
    except OSError as error:
        raise SettingsError(f"LECTERN_KEYS_FILE: {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"LECTERN_KEYS_FILE: {file} is not text") from None
