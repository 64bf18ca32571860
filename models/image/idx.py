"""The head of an IDX file, MNIST's format (http://yann.lecun.com/exdb/mnist, "the IDX file format"). Torch-free."""

import struct

from models.errors import DataError


def read_head(content: bytes, name: str, axes: int) -> tuple[int, ...]:
    """Return the shape of an IDX file of unsigned bytes; its values follow after ``4 + 4 * axes`` bytes.

    Args:
        content: The file, or its beginning.
        name: Of the file, for errors.
        axes: How many it has: 3 for pictures, 1 for labels.

    Raises:
        DataError: If it begins otherwise.
    """
    end = 4 + 4 * axes
    if len(content) < end or content[:4] != bytes((0, 0, 8, axes)):
        raise DataError(name, found=f"header {content[:4].hex()}", expected=f"0000080{axes}")
    return struct.unpack(f">{axes}I", content[4:end])
