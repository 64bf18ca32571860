"""The memory that bodies of requests may take in one process."""

from models.errors import Overloaded

# A longer body takes longer to parse than others should wait for it: 64 KiB of view counts take 0.2 ms.
LONG_BODY_BYTES = 64 * 1024
# When so many are gone it is worth while to give their memory back to the system.
MANY_BODY_BYTES = 4 * 2**20
BUSY = "too many long bodies are arriving or being read, try again"


def too_many_bodies_in_flight() -> Overloaded:
    """Return the refusal of a long body that has no room; the rest of it is never read."""
    error = Overloaded(BUSY)
    error.is_last = True
    error.refusal = "body_memory"
    return error


class BodyMemory:
    """Counts bodies from their first byte until their samples are made, or nobody needs them any more.

    Two hundred bodies of 16 MB that had arrived and waited to be parsed took more than a gigabyte.

    Attributes:
        most: Bytes there may be.
        held: Bytes there are: of long bodies, and of short ones that are parsed and wait for a thread.
        is_stretched: Whether there were many since this was last looked at.
    """

    def __init__(self, most: int) -> None:
        self.most, self.held, self.is_stretched = most, 0, False

    def fits(self, length: int) -> bool:
        """Return whether a body of so many bytes may come now; a short one always may."""
        return length <= LONG_BODY_BYTES or self.held + length <= self.most

    def hold(self, more: int) -> bool:
        """Count more bytes, or fewer; whether there is room for all."""
        self.held += more
        self.is_stretched = self.is_stretched or self.held > MANY_BODY_BYTES
        return self.held <= self.most
