"""Pictures in a tar or zip archive, read where they are: nothing is ever unpacked to disk.

A zip file's rows are sorted by name; a tar file's stand in its own order, for it can only be read from its beginning.
"""

import hashlib
import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

from models.errors import DataError, HttpError, InputChanged, InvalidRequest
from models.picture_names import is_picture
from service.scoring.inputs.interfaces import PartSpec
from service.scoring.inputs.pictures import SCHEMA, FileReader, FileRows, from_json, nothing_to_read, to_json, too_large
from service.scoring.inputs.row_splitting import MAX_ROW_BYTES
from service.scoring.inputs.storage import BLOCK_BYTES, Pass, Spans
from service.scoring.inputs.verified_file import CheckedFile, block_digests, blocks_between, digest_of
from service.scoring.spec import JobSpec

_ZIP_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError)
# A member's own header: mark, flags, method, lengths of its name and of what else it says.
_LOCAL = struct.Struct("<4s2xHH16xHH")
_LOCAL_MARK = b"PK\x03\x04"
# How hard it was packed, whether its sizes stand behind it, and how its name is written.
_UTF8 = 0x800
_PLAIN_FLAGS = 0x2 | 0x4 | 0x8 | _UTF8
# A local header's fixed part, and the longest name and extra field it can have.
_LOCAL_BYTES = 30 + 2 * 2**16


class _Member(NamedTuple):
    """Describe what the archive's list says of a file."""

    name: str
    offset: int
    packed: int
    size: int
    method: int
    flags: int
    crc: int

    @classmethod
    def of(cls, member: zipfile.ZipInfo) -> list[Any]:
        """As JSON holds it."""
        name, packed, size = member.filename, member.compress_size, member.file_size
        return [*cls(name, member.header_offset, packed, size, member.compress_type, member.flag_bits, member.CRC)]


class ZipSource:
    """A zip file."""

    schema = SCHEMA

    def __init__(self, spec: JobSpec) -> None:
        self._spec, self._reader, self._pass = spec, FileReader(spec), Pass(spec.source, "")
        self.passed_over, self.notes = 0, ()
        self._file = CheckedFile(spec.source)

    @cached_property
    def _archive(self) -> zipfile.ZipFile:
        # Listing 60,000 members takes half a second: only whoever cuts, or meets a strange member, does it.
        try:
            self._file.seek(0)
            return zipfile.ZipFile(self._file)
        except _ZIP_DAMAGE as error:
            raise DataError(self._spec.source, found="no zip file, or a torn end", expected="a whole one") from error

    @cached_property
    def _members(self) -> list[zipfile.ZipInfo]:
        files = [one for one in self._archive.infolist() if not one.is_dir()]
        members = [one for one in files if is_picture(one.filename)]
        self.passed_over = len(files) - len(members)
        return sorted(members, key=lambda one: (one.filename, one.header_offset))

    @property
    def digest(self) -> str:
        """sha256 of the file."""
        return self._pass.digest

    def cuts(self) -> Iterator[PartSpec]:
        """Parts of the members sorted by name, by rows and by bytes as they are packed and unpacked."""
        members = self._members
        if not members:
            raise nothing_to_read(self._spec, self.passed_over)
        self._refuse_overlaps()
        digests = block_digests(self._pass)
        size = self._file.seek(0, io.SEEK_END)
        tail = blocks_between(min(self._archive.start_dir, size), size)
        options = self._spec.options
        first = index = total = 0
        for member_index, member in enumerate(members):
            total += min(MAX_ROW_BYTES, max(member.file_size, member.compress_size))
            if member_index + 1 - first >= options.most_rows or total >= options.part_bytes:
                yield self._cut(index, first, member_index + 1, [digests, tail])
                index, first, total = index + 1, member_index + 1, 0
        if first < len(members):
            yield self._cut(index, first, len(members), [digests, tail])

    def _refuse_overlaps(self) -> None:
        """Members that share bytes let a small file unpack to any size; no program that packs files writes them."""
        for one, other in pairwise(sorted(self._members, key=lambda member: member.header_offset)):
            if one.header_offset + _LOCAL.size + one.compress_size > other.header_offset:
                found = f"a member that overlaps with another ({one.filename!r:.60})"
                raise DataError(self._spec.source, found=found, expected="members with bytes of their own")

    def _cut(self, index: int, first: int, end: int, known: list[Any]) -> PartSpec:
        digests, tail = known
        numbers, members = {*tail}, self._members[first:end]
        for member in members:
            last = min(len(digests) * BLOCK_BYTES, member.header_offset + _LOCAL_BYTES + member.compress_size)
            numbers.update(blocks_between(member.header_offset, last))
        expected = {str(number): digests[number] for number in sorted(numbers) if number < len(digests)}
        listed = [_Member.of(member) for member in members]
        digest = hashlib.sha256(repr((digest_of(expected), listed)).encode(errors="surrogatepass")).hexdigest()
        return PartSpec(
            index=index,
            first_row=first,
            rows=end - first,
            digest=digest,
            place={"blocks": expected, "members": listed},
        )

    def read(self, cut: PartSpec) -> FileRows:
        """Return the members of a part."""
        self._file.expected = cut.place["blocks"]
        members = [_Member(*one) for one in cut.place["members"]]
        contents = [self._content(cut.first_row + member_index, one) for member_index, one in enumerate(members)]
        return self._reader.rows([one.name for one in members], contents)

    def _content(self, row: int, member: "_Member") -> bytes | HttpError:
        # What a member says of its size may be wrong, and ends its unpacking all the same.
        if member.size > MAX_ROW_BYTES:
            return too_large()
        plain = self._plain_content(member)
        if plain is not None:
            return plain
        try:
            with self._archive.open(self._members[row]) as opened:
                return opened.read()
        except DataError as error:
            raise InputChanged(f"{self._spec.source}: changed since it was cut into parts") from error
        except _ZIP_DAMAGE:
            return InvalidRequest("the archive's member is damaged, or packed or locked in a way that is not read")

    def _plain_content(self, member: "_Member") -> bytes | None:
        """A member as nearly all are, in a third of the time that ``zipfile`` takes; ``None``: that one may say."""
        if member.method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or member.flags & ~_PLAIN_FLAGS:
            return None
        self._file.seek(member.offset)
        name = member.name.encode("utf-8" if member.flags & _UTF8 else "cp437", "replace")
        head = self._file.read(_LOCAL.size + len(name))
        if len(head) < _LOCAL.size:
            return None
        mark, flags, method, name_bytes, extra_bytes = _LOCAL.unpack_from(head)
        if (mark, flags, method) != (_LOCAL_MARK, member.flags, member.method) or head[_LOCAL.size :] != name:
            return None
        if name_bytes != len(name):
            return None
        self._file.seek(extra_bytes, io.SEEK_CUR)
        try:
            found = self._file.read(member.packed)
            if member.method == zipfile.ZIP_DEFLATED:
                found = zlib.decompressobj(-zlib.MAX_WBITS).decompress(found, member.size + 1)
        except zlib.error:
            return None
        return found if len(found) == member.size and zlib.crc32(found) == member.crc else None


class TarSource:
    """A tar file, as it is or compressed."""

    schema = SCHEMA

    def __init__(self, spec: JobSpec) -> None:
        self._spec, self._reader, self.passed_over, self.notes = spec, FileReader(spec), 0, ()
        self._pass = Pass(spec.source, spec.compression)
        self._spans = Spans(spec.source, spec.compression)

    @property
    def digest(self) -> str:
        """sha256 of the stored bytes."""
        return self._pass.digest

    def cuts(self) -> Iterator[PartSpec]:
        """Parts of the members in the archive's order."""
        options = self._spec.options
        members: list[list[Any]] = []
        index = first = size = 0
        blocks = _Blocks(self._pass.blocks())
        try:
            with tarfile.open(fileobj=blocks, mode="r|") as archive:  # type: ignore[call-overload]
                for name, offset, length, digest in self._pictures(archive):
                    members.append([to_json(name), offset, length, digest])
                    size += length
                    if len(members) >= options.most_rows or size >= options.part_bytes:
                        yield _cut(index, first, members)
                        index, first, size, members = index + 1, first + len(members), 0, []
            blocks.drain()
        except (tarfile.TarError, EOFError) as error:
            raise DataError(self._spec.source, found="no tar file, or a torn end", expected="a whole one") from error
        if members:
            yield _cut(index, first, members)
        elif not index:
            raise nothing_to_read(self._spec, self.passed_over)

    def _pictures(self, archive: tarfile.TarFile) -> Iterator[tuple[str, int, int, str]]:
        """Name, place, length and digest of each picture; no digest where it is not to be read."""
        for member in archive:
            archive.members = []  # type: ignore[attr-defined] # or it remembers them all
            if member.isdir():
                continue
            if not is_picture(member.name):
                self.passed_over += 1
                continue
            opened = archive.extractfile(member) if member.isreg() else None
            if opened is None:
                yield member.name, 0, 0, ""
            elif member.size > MAX_ROW_BYTES:
                yield member.name, 0, member.size, ""
            else:
                yield member.name, member.offset_data, member.size, hashlib.sha256(opened.read()).hexdigest()

    def read(self, cut: PartSpec) -> FileRows:
        """Return the members of a part."""
        members: list[list[Any]] = cut.place["members"]
        contents = [self._content(offset, length, digest) for _, offset, length, digest in members]
        return self._reader.rows([from_json(name) for name, *_ in members], contents)

    def _content(self, offset: int, length: int, digest: str) -> bytes | HttpError:
        if not digest:
            return too_large() if length else InvalidRequest("the archive's member is no file, but a link or a device")
        return self._spans.read(offset, length, digest)


def _cut(index: int, first: int, members: list[list[Any]]) -> PartSpec:
    digest = hashlib.sha256(repr(members).encode(errors="surrogatepass")).hexdigest()
    return PartSpec(index=index, first_row=first, rows=len(members), digest=digest, place={"members": members})


class _Blocks:
    """Blocks as a file that is read once."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks, self._held = blocks, b""

    def read(self, size: int) -> bytes:
        """Return the next bytes."""
        while len(self._held) < size and (block := next(self._blocks, b"")):
            self._held += block
        piece, self._held = self._held[:size], self._held[size:]
        return piece

    def drain(self) -> None:
        """Read what is left, which belongs to the digest."""
        for _ in self._blocks:
            pass
