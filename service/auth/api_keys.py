"""API keys: who has one and what it may do. ``python -m service.auth new --name NAME`` makes one.

A key is 256 random bits, and what is stored is its SHA-256. A slow, salted hash is for passwords, which people choose
and others can guess; nobody can try 2^256 keys, so a fast hash gives nothing away and costs a request 0.3 µs.

A line is one key, in a file (``LECTERN_KEYS_FILE``) as in the environment (``LECTERN_KEYS``, lines parted by ``;``)::

    NAME SHA256 ROLE[,ROLE...] [requests_per_second=NUMBER] [burst=NUMBER]

Lines, as in SSH's ``authorized_keys``: a key is added with ``>>``, withdrawn by deleting its line, and seen in a diff.
"""

import hashlib
import re
import secrets
from collections.abc import Iterable
from typing import NamedTuple

from models.errors import SettingsError
from service.settings import LEAST_PER_SECOND, MOST_PER_SECOND, Settings

PREDICT, ADMIN, METRICS, JOBS, LOAD_TEST = 1, 2, 4, 8, 16
ROLES = {"predict": PREDICT, "admin": ADMIN, "metrics": METRICS, "jobs": JOBS, "load-test": LOAD_TEST}
# So that those who search published code for secrets find a key that leaked.
PREFIX = "lectern_"
LINE = "NAME SHA256 ROLE[,ROLE...] [requests_per_second=NUMBER] [burst=NUMBER]"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Key(NamedTuple):
    """One key, without the key itself.

    Attributes:
        name: Whose it is, for people.
        digest: SHA-256 of the key.
        roles: What it may do, a sum of ``PREDICT``, ``ADMIN``, ``METRICS``, ``JOBS`` and ``LOAD_TEST``.
        requests_per_second: How often it may ask; ``None`` for the deployment's limit.
        burst: How many requests at once; ``None`` for those of one second.
    """

    name: str
    digest: bytes
    roles: int
    requests_per_second: float | None = None
    burst: int | None = None


def parse_keys(text: str, source: str) -> list[Key]:
    """Return the keys of a file or a variable; what stands behind ``#`` is not read.

    Args:
        text: Lines.
        source: What to call it in an error, which never quotes it: it may hold a key by mistake.

    Raises:
        SettingsError: If a line is none, or a name or a key is there twice.
    """
    keys = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        try:
            keys += [_key(words)] if words else []
        except ValueError as error:
            raise SettingsError(f"{source}, line {number}: {error}; expected {LINE}") from None
    check_unique(keys, source)
    return keys


def check_unique(keys: Iterable[Key], source: str) -> None:
    """Raise ``SettingsError`` when a name or a key is there twice."""
    names: set[str] = set()
    digests: set[bytes] = set()
    for key in keys:
        if key.name in names or key.digest in digests:
            what = "name" if key.name in names else "key"
            raise SettingsError(f"{source}: the {what} of {key.name} is there twice")
        names.add(key.name)
        digests.add(key.digest)


def _key(words: list[str]) -> Key:
    if len(words) < 3:
        raise ValueError("it has fewer than three words")
    name, digest, roles, *limits = words
    if not _NAME.fullmatch(name):
        raise ValueError("the name is not 1 to 64 letters, digits, dots, dashes or underscores")
    if not _SHA256.fullmatch(digest.lower()):
        raise ValueError("the second word is not the SHA-256 of a key")
    if not set(roles.split(",")) <= ROLES.keys():
        raise ValueError(f"the roles are {', '.join(ROLES)}")
    found: dict[str, float] = {}
    for limit in limits:
        what, _, number = limit.partition("=")
        if what not in ("requests_per_second", "burst") or what in found:
            raise ValueError("the fourth and fifth words are limits")
        found[what] = _limit(number)
    burst = found.get("burst")
    if burst is not None and burst != int(burst):
        raise ValueError("burst is a whole number")
    total = sum({ROLES[role] for role in roles.split(",")})
    limit_at = found.get("requests_per_second")
    return Key(name, bytes.fromhex(digest), total, limit_at, None if burst is None else int(burst))


def _limit(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not LEAST_PER_SECOND <= number <= MOST_PER_SECOND:
        raise ValueError(f"a limit is not a number from {LEAST_PER_SECOND} to {MOST_PER_SECOND}")
    return number


def environment_keys(settings: Settings) -> list[Key]:
    """Return the keys of ``LECTERN_KEYS``.

    Raises:
        SettingsError: If one cannot be read.
    """
    return parse_keys(settings.keys.replace(";", "\n"), "LECTERN_KEYS")


def new_key() -> str:
    """A key nobody has seen, of 256 random bits."""
    return PREFIX + secrets.token_urlsafe(32)


def line_of(key: str, name: str, roles: Iterable[str], *, rate: float | None = None, burst: int | None = None) -> str:
    """Return the line that lets ``key`` in."""
    words = [name, hashlib.sha256(key.encode()).hexdigest(), ",".join(roles)]
    words += [f"requests_per_second={rate:.12g}"] if rate is not None else []
    words += [f"burst={burst}"] if burst is not None else []
    return " ".join(words)
