"""Look up keys: those of one reading, how headers name one, and how often each is used.

A key is found by the SHA-256 of what was presented. Nobody can choose what to present so that its hash agrees with a
stored one in more places, so the time that the look-up takes tells nothing; ``compare_digest`` has the last word.
"""

from hashlib import sha256
from hmac import compare_digest

from prometheus_client import Counter, Gauge

from models.errors import RateLimited, Unauthenticated
from service.auth.api_keys import Key
from service.auth.rate_limit import TokenBucket
from service.messages.headers import Header
from service.telemetry.fast_values import MmapCounters
from service.telemetry.metrics_storage import require_room

ALLOWED, FORBIDDEN, RATE_LIMITED = KEY_OUTCOMES = ("allowed", "forbidden", "rate_limited")
# Ours have 51; nobody shall have megabytes hashed.
MOST_KEY_BYTES = 512
MOST_SEEN = 4096
NO_KEY = "present one known key, as Authorization: Bearer KEY or as x-api-key: KEY"

require_room()

_KEY_REQUESTS = Counter(
    "lectern_key_requests_total",
    "Requests on any path by the name of their key, and whether it let them in; only where there are keys.",
    ["key", "outcome"],
)
KEYS_FILE_ERROR = Gauge(
    "lectern_keys_file_error",
    "1 while the file with the keys cannot be read or has a line that is no key, and the keys read before stay.",
    multiprocess_mode="livemax",
)


class Caller:
    """Whoever holds a key.

    Attributes:
        key: Which.
        roles: The key's, where a request finds them.
        bucket: Its tokens; ``None`` without a limit.
    """

    __slots__ = ("_allowed", "_numbers", "_tally", "bucket", "digest", "key", "roles")

    def __init__(self, key: Key, bucket: TokenBucket | None) -> None:
        self.key, self.digest, self.roles, self.bucket = key, key.digest, key.roles, bucket
        self._tally = MmapCounters(_KEY_REQUESTS, KEY_OUTCOMES, key=key.name)
        self._numbers, self._allowed = self._tally.numbers, self._tally.offsets[ALLOWED]

    def refusal(self) -> RateLimited | None:
        """Count a request that its key lets in, or say why not yet."""
        error = None if self.bucket is None else self.bucket.refusal()
        if error is None:
            self._numbers[self._allowed] += 1.0
        else:
            self._tally.add(RATE_LIMITED)
        return error

    def forbid(self) -> None:
        """Count a request that its key does not let in."""
        self._tally.add(FORBIDDEN)


class KeyRing:
    """The callers of one reading of the keys.

    The headers that brought good keys are remembered as they came: hashing each again cost a request 2.5 µs instead of
    0.5. They are found by Python's own hash, which a secret of the process keys, so their time tells nothing either.
    """

    __slots__ = ("_api_keys", "_bearers", "callers")

    def __init__(self, callers: dict[bytes, Caller]) -> None:
        self.callers = callers
        self._bearers: dict[bytes | None, Caller] = {}
        self._api_keys: dict[bytes | None, Caller] = {}

    def remember(self, found: dict[bytes, bytes]) -> Caller | None:
        """Return the caller that has sent this header before, where it is the only one."""
        key = found.get(b"x-api-key")
        if key is None:
            return self._bearers.get(found.get(b"authorization"))
        return None if b"authorization" in found else self._api_keys.get(key)

    def look_up(self, headers: list[Header], found: dict[bytes, bytes]) -> Caller:
        """Return the caller with the key in these headers.

        Raises:
            Unauthenticated: Without exactly one known key.
        """
        given, value = found.get(b"x-api-key"), found.get(b"authorization")
        bearer = None if value is None else _bearer(value)
        key = bearer if given is None else given.strip()
        if not key or (value is not None and bearer != key) or len(key) > MOST_KEY_BYTES or _is_doubled(headers):
            raise Unauthenticated(NO_KEY)
        digest = sha256(key).digest()
        caller = self.callers.get(digest)
        if caller is None or not compare_digest(caller.digest, digest):
            raise Unauthenticated(NO_KEY)
        if given is None or value is None:
            seen, header = (self._bearers, value) if given is None else (self._api_keys, given)
            if len(seen) >= MOST_SEEN:
                seen.clear()
            seen[header] = caller
        return caller


def _bearer(value: bytes) -> bytes | None:
    scheme, _, key = value.partition(b" ")
    return key.strip() if scheme.lower() == b"bearer" else None


def _is_doubled(headers: list[Header]) -> bool:
    names = [name for name, _ in headers]
    return names.count(b"authorization") > 1 or names.count(b"x-api-key") > 1
