"""Text in other encodings than UTF-8, read as UTF-8."""

import codecs

from models.errors import DataError

# What must be itself in an encoding: rows and cells are found before anything is decoded.
_SAME = bytes(code for code in range(128) if code != 0x5C) + rb"\n\u000a"


class Encoding:
    """Describe how the bytes of an input become UTF-8.

    Args:
        name: As Python calls it; empty: UTF-8.
        address: The input's, for errors.

    Attributes:
        name: For people.

    Raises:
        DataError: If there is no such encoding, or one in which ASCII is not itself.
    """

    def __init__(self, name: str, address: str) -> None:
        self.name, self._address, self._is_utf8 = name or "UTF-8", address, True
        try:
            self._is_utf8 = not name or codecs.lookup(name).name in ("utf-8", "utf-8-sig")
            is_usable = _SAME.decode(name or "utf-8") == _SAME.decode("ascii")
        except (LookupError, UnicodeError):
            is_usable = False
        if not is_usable:
            expected = "one in which ASCII is itself, such as latin-1, cp1252 or shift_jis; else convert it (iconv)"
            raise DataError(address, found=f"the encoding {name!r}", expected=expected)

    def to_utf8(self, text: bytes) -> bytes:
        """Return a piece of whole lines in UTF-8; bytes that mean nothing stay, and are no UTF-8."""
        if self._is_utf8:
            return text
        return text.decode(self.name, "surrogateescape").encode(errors="surrogateescape")

    def without_mark(self, text: bytes) -> tuple[bytes, bytes]:
        """Return a text's byte order mark, and the rest of it.

        Raises:
            DataError: If the mark is that of UTF-16.
        """
        if text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            expected = "UTF-8 (iconv -f UTF-16 -t UTF-8 converts it)"
            raise DataError(self._address, found="text in UTF-16", expected=expected)
        start = len(codecs.BOM_UTF8) if self._is_utf8 and text.startswith(codecs.BOM_UTF8) else 0
        return text[:start], text[start:]
