"""Remember which versions are active: a file in ``BENTOML_HOME`` that all processes follow."""

import os
from pathlib import Path
from tempfile import NamedTemporaryFile

import msgspec

from models.errors import SettingsError
from service.settings.environment import home

FILE = "lectern-live.json"


class ActiveVersion(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The version that serves, the one before it, and whether the model was taken out of service."""

    version: str
    previous: str
    is_unloaded: bool = False


def path() -> Path:
    """Return where the file is."""
    return home() / FILE


def read_active() -> dict[str, ActiveVersion]:
    """Return what has been brought live, by model; empty when nothing has.

    Raises:
        SettingsError: If the file is not what ``write_active`` wrote.
    """
    try:
        return msgspec.json.decode(path().read_bytes(), type=dict[str, ActiveVersion])
    except FileNotFoundError:
        return {}
    except msgspec.MsgspecError as error:
        raise SettingsError(f"{path()}: {error}; mend it, or delete it to serve the repository's versions") from error


def write_active(live: dict[str, ActiveVersion]) -> None:
    """Replace the file at once: whoever reads meanwhile reads the old one or the new one, also after a power cut."""
    target = path()
    with NamedTemporaryFile(dir=target.parent, prefix=FILE, delete=False) as file:
        file.write(msgspec.json.format(msgspec.json.encode(live)) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
