"""Tell local paths from addresses of fsspec's."""

from pathlib import Path


def is_local(address: str) -> bool:
    """Return whether it is a path of this machine."""
    return "://" not in address or address.startswith("file://")


def local_path(address: str) -> Path:
    """Return the path of a local address."""
    return Path(address.removeprefix("file://"))
