"""The caller's key, where the service asks for one."""

from pathlib import Path


def read_key(file: str | Path | None) -> str:
    """Return the key in a file; none without a file.

    Raises:
        ValueError: If the file cannot be read, or does not hold one key; the message never quotes it.
    """
    if not file:
        return ""
    try:
        key = Path(file).read_text("ascii").strip()
    except OSError as error:
        raise ValueError(f"the key file {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"the key file {file} must hold one key, in ASCII") from None
    if not key.isprintable() or len(key.split()) != 1:
        raise ValueError(f"the key file {file} must hold one key, found {len(key.split())} words")
    return key
