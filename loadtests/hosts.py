"""Addresses of services, as people type them."""

from typing import Any, NamedTuple
from urllib.parse import urlsplit

import click

DEFAULT_HOST = "http://127.0.0.1:3000"
_PORTS = {"http": 80, "https": 443}


class HostAddress(NamedTuple):
    """Describe where a service listens.

    Attributes:
        scheme: ``http`` or ``https``.
        name: Of the machine, or its address; IPv6 without brackets.
        port: The scheme's own where none was given.
        prefix: Path below which the service is found, behind a proxy; ``""`` or ``/...`` without a slash at its end.
    """

    scheme: str
    name: str
    port: int
    prefix: str

    @property
    def authority(self) -> str:
        """Return the value of the header ``Host``."""
        return f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"

    @property
    def url(self) -> str:
        """Return the whole address, without a slash at its end."""
        return f"{self.scheme}://{self.authority}{self.prefix}"


def read_host(text: str) -> HostAddress:
    """Read ``[http[s]://]HOST[:PORT][/PATH]``; without a scheme it is http, and slashes at the end are no path.

    Raises:
        ValueError: If it is no such address; the message says what is allowed.
    """
    wanted = f"the host must be [http[s]://]HOST[:PORT][/PATH], got {text!r}"
    try:
        found = urlsplit(text if "://" in text else f"http://{text}")
        port = found.port
    except ValueError as error:
        raise ValueError(f"{wanted}: {error}") from None
    is_plain = not (found.query or found.fragment or "@" in found.netloc) and text.isascii() and text.isprintable()
    if found.scheme not in _PORTS or not found.hostname or port == 0 or not is_plain or " " in text:
        raise ValueError(wanted)
    return HostAddress(found.scheme, found.hostname, port or _PORTS[found.scheme], found.path.rstrip("/"))


class Host(click.ParamType[str]):
    """The option ``--host``: its value is the whole address."""

    name = "url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the whole address; the command ends with a sentence if it is none."""
        try:
            return read_host(value).url
        except ValueError as error:
            self.fail(str(error), param, ctx)
