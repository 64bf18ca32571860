"""Memory that nobody uses any more, back to the system."""

import ctypes
from contextlib import suppress


def give_back() -> None:
    """Let the C library give back whole pages of what was freed; does nothing where it is not glibc.

    By itself it gives back only the end of its heap, and long bodies are freed in the middle: 200 senders of bodies
    without end left 55 MB. It takes up to 8 ms, for which other threads may wait for memory.
    """
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
