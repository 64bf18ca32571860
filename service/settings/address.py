"""Find where the service listens, and where a caller on this machine reaches it."""

import socket

from models.errors import SettingsError
from service.settings import Settings

# What is listened on, and where that can be reached.
ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


def find_url(settings: Settings) -> str:
    """Name the service as a caller on this machine types it, without a slash at the end."""
    host = ANY_HOST.get(settings.host, settings.host)
    return f"{'https' if settings.tls_certificate else 'http'}://{_authority(host, settings.port)}"


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def find_address(settings: Settings) -> str:
    """Look the host up, IPv4 first, and try to listen there; BentoML takes nothing but addresses.

    Raises:
        SettingsError: If nobody can listen there.
    """
    where = f"cannot listen on {_authority(settings.host, settings.port)}"
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = min(found)
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except UnicodeError as error:  # a name whose parts are too long to be looked up
        raise SettingsError(f"{where}: no name of a host") from error
    except OSError as error:
        raise SettingsError(f"{where}: {error.strerror}") from error
    return str(address[0])
