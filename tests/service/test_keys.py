"""Keys: how they are made, written down, read, and read again when their file changes."""

import contextlib
import hashlib
import logging
import os
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from models.errors import Forbidden, SettingsError, Unauthenticated
from service.auth.__main__ import main
from service.auth.access import Access, open_access
from service.auth.api_keys import ADMIN, METRICS, PREDICT, Key, line_of, new_key, parse_keys
from service.auth.callers import Caller
from service.auth.rate_limit import TokenBucket
from service.settings import Settings

ALICE, BOB = "lectern_" + "a" * 43, "lectern_" + "b" * 43
OF_ALICE, OF_BOB = line_of(ALICE, "alice", ["predict"]), line_of(BOB, "bob", ["predict"])


def digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def may(access: Access, key: str, role: int = PREDICT) -> bool:
    """Return whether this key is let in."""
    headers = [(b"x-api-key", key.encode())]
    try:
        access.check(role, headers, dict(headers), ("127.0.0.1", 1))
    except (Unauthenticated, Forbidden):
        return False
    return True


def test_lines() -> None:
    """Names, hashes, roles and limits; comments and empty lines are nothing."""
    hexadecimal = hashlib.sha256(b"k").hexdigest()
    text = f"""
    # the team's
    ci {hexadecimal} predict  # until spring
    ops {"0" * 64} admin,metrics requests_per_second=0.5 burst=3
    both\t{"F" * 64}\tpredict,admin,predict burst=2
    """
    assert parse_keys(text, "f") == [
        Key("ci", hashlib.sha256(b"k").digest(), PREDICT),
        Key("ops", bytes(32), ADMIN | METRICS, 0.5, 3),
        Key("both", b"\xff" * 32, PREDICT | ADMIN, None, 2),
    ]
    assert parse_keys("", "f") == parse_keys("# x\n\n", "f") == []


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("SECRET", "fewer than three words"),
        ("SECRET predict", "fewer than three words"),
        (f"SE=CRET {'0' * 64} predict", "the name is not"),
        (f"{'x' * 65} {'0' * 64} predict", "the name is not"),
        ("ci SECRET predict", "not the SHA-256"),
        (f"ci {'0' * 63} predict", "not the SHA-256"),
        (f"ci {'g' * 64} predict", "not the SHA-256"),
        (f"ci {'0' * 64} SECRET", "the roles are predict, admin, metrics"),
        (f"ci {'0' * 64} predict,", "the roles are"),
        (f"ci {'0' * 64} Predict", "the roles are"),
        (f"ci {'0' * 64} predict SECRET=5", "fourth and fifth"),
        (f"ci {'0' * 64} predict burst=1 burst=2", "fourth and fifth"),
        (f"ci {'0' * 64} predict burst=1.5", "whole number"),
        (f"ci {'0' * 64} predict burst=0", "a limit is not a number from"),
        (f"ci {'0' * 64} predict requests_per_second=SECRET", "a limit is not"),
        (f"ci {'0' * 64} predict requests_per_second=-1", "a limit is not"),
        (f"ci {'0' * 64} predict requests_per_second=nan", "a limit is not"),
        (f"ci {'0' * 64} predict requests_per_second=inf", "a limit is not"),
        (f"ci {'0' * 64} predict requests_per_second=1e-320", "a limit is not"),
    ],
)
def test_bad_lines(line: str, words: str) -> None:
    """What is no line is an error with its number, and without a word of it: it may be a key."""
    with pytest.raises(SettingsError) as caught:
        parse_keys("\n" + line, "LECTERN_KEYS")
    assert words in str(caught.value)
    assert str(caught.value).startswith("LECTERN_KEYS, line 2: ")
    assert "SECRET" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_twice() -> None:
    """One name for two keys, or two names for one key, is an error, in one place or across both."""
    with pytest.raises(SettingsError, match="the name of alice is there twice"):
        parse_keys(f"{OF_ALICE}\nalice {'0' * 64} predict", "f")
    with pytest.raises(SettingsError, match="the key of carol is there twice"):
        parse_keys(OF_ALICE + "\n" + OF_ALICE.replace("alice", "carol"), "f")


def test_across(tmp_path: Path) -> None:
    """The keys of the file and of the environment hold together."""
    file = tmp_path / "keys"
    file.write_text(OF_ALICE)
    access = Access(Settings(keys_file=str(file), keys=OF_BOB))
    assert may(access, ALICE)
    assert may(access, BOB)
    with pytest.raises(SettingsError, match="twice"):
        Access(Settings(keys_file=str(file), keys=OF_ALICE))


def test_new_keys() -> None:
    """A key has 256 random bits, and two are never alike."""
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert {len(key) for key in keys} == {len("lectern_") + 43}
    assert all(key.isascii() and key.startswith("lectern_") for key in keys)


def test_command() -> None:
    """``new`` shows the key on standard error, and its line, which lets it in, on standard output."""
    done = CliRunner().invoke(main, ["new", "--name", "ci"])
    assert done.exit_code == 0
    key = done.stderr.split()[-1]
    assert done.stdout.count("\n") == 1
    assert key not in done.stdout
    access = Access(Settings(keys=done.stdout.strip()))
    assert [found.name for found in access.keys] == ["ci"]
    assert (may(access, key), may(access, key, ADMIN), may(access, key, METRICS)) == (True, False, False)


def test_command_in_full() -> None:
    """Roles and limits stand in the line."""
    roles = ["--role", "admin", "--role", "metrics", "--role", "admin"]
    done = CliRunner().invoke(main, ["new", "--name", "a.b", *roles, "--requests-per-second", "2.5", "--burst", "9"])
    (key,) = parse_keys(done.stdout, "f")
    assert key == ("a.b", digest(done.stderr.split()[-1]), ADMIN | METRICS, 2.5, 9)


@pytest.mark.parametrize(
    "arguments", [[], ["--name", "a b"], ["--name", "x", "--role", "god"], ["--name", "x", "--burst", "0"]], ids=str
)
def test_wrong_command(arguments: list[str]) -> None:
    """A name that no line can hold, an unknown role and a limit of nothing make no key."""
    done = CliRunner().invoke(main, ["new", *arguments])
    assert done.exit_code != 0
    assert "lectern_" not in done.output


# Who is let in


def test_open() -> None:
    """Without a key and without a rate nobody is asked anything."""
    assert open_access(Settings()) is None
    assert open_access(Settings(keys=" ; ")) is not None  # somebody meant there to be keys
    assert not may(Access(Settings(keys=" ; ")), "")


@pytest.mark.parametrize(
    "key", ["", ALICE[:-1], ALICE + "a", ALICE.upper(), hashlib.sha256(ALICE.encode()).hexdigest()]
)
def test_not_quite(key: str) -> None:
    """What is nearly a key, or is what the file has of it, is none."""
    access = Access(Settings(keys=OF_ALICE))
    assert may(access, ALICE)
    assert not may(access, key)


def test_said_at_start(caplog: pytest.LogCaptureFixture) -> None:
    """The log says whose keys hold, and warns when a service that is not local has none."""
    warning = "whoever reaches 0.0.0.0 may call: there are no LECTERN_KEYS and no LECTERN_KEYS_FILE"
    cases: list[tuple[dict[str, str], list[str]]] = [
        ({"keys": f"{OF_ALICE};{OF_BOB}", "host": "0.0.0.0"}, ["keys: alice, bob"]),
        ({"keys": "#"}, ["keys: none, so nobody may call"]),
        ({"host": "0.0.0.0"}, [warning]),
        ({}, []),
    ]
    with caplog.at_level(logging.INFO):
        for more, words in cases:
            caplog.clear()
            open_access(Settings(**more))  # type: ignore[arg-type]
            assert [record.message for record in caplog.records] == words


def test_hash_of_nothing() -> None:
    """No key is not a key, even when somebody put the hash of nothing into the file."""
    assert not may(Access(Settings(keys=f"nobody {hashlib.sha256(b'').hexdigest()} predict")), "")


def test_long_keys_are_not_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Megabytes in a header are refused without a look at them."""
    access, hashed = Access(Settings(keys=OF_ALICE)), []

    def sha256(key: bytes) -> Any:
        hashed.append(len(key))
        return hashlib.sha256(key)

    monkeypatch.setattr("service.auth.callers.sha256", sha256)
    assert not may(access, "x" * 2**20)
    assert may(access, ALICE)
    assert hashed == [len(ALICE)]


def test_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compared is the whole hash, by the function whose time tells nothing."""
    compared = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return False

    monkeypatch.setattr("service.auth.callers.compare_digest", compare)
    assert not may(Access(Settings(keys=OF_ALICE)), ALICE)
    assert compared == [(digest(ALICE), digest(ALICE))]


@pytest.mark.parametrize(
    ("path", "roles"),
    [
        ("/v1/models/image/predict", PREDICT),
        ("/metrics", METRICS),
        ("/", PREDICT | ADMIN),
        ("/docs.json", PREDICT | ADMIN),
        ("/v1/models", PREDICT | ADMIN),
        ("/schema.json", PREDICT | ADMIN),
        ("/static_content/swagger-ui.css", PREDICT | ADMIN),
        ("/nothing", PREDICT | ADMIN),
    ],
)
def test_roles(path: str, roles: int) -> None:
    """Predictions are for ``predict``, metrics for ``metrics``, pages for whoever predicts or administers."""
    assert Access(Settings(keys=OF_ALICE)).needed(path) == roles


def test_admin() -> None:
    """The admin routes are for ``admin`` once there is such a key; until then they are paths like any unknown one."""
    without, with_admin = Access(Settings(keys=OF_ALICE)), Access(Settings(keys=line_of(BOB, "bob", ["admin"])))
    assert (without.has_admin, without.needed("/v1/admin/x")) == (False, PREDICT | ADMIN)
    assert (with_admin.has_admin, with_admin.needed("/v1/admin/x")) == (True, ADMIN)
    assert not Access(Settings(requests_per_second=1)).has_admin


def test_few_headers_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has a key cannot fill the memory with spellings of it, and bad ones are not kept at all."""
    monkeypatch.setattr("service.auth.callers.MOST_SEEN", 3)
    access = Access(Settings(keys=OF_ALICE))
    for number in range(50):
        for value in (b"Bearer " + b" " * number + ALICE.encode(), b"Bearer %d" % number):
            headers = [(b"authorization", value)]
            with contextlib.suppress(Unauthenticated):
                access.check(PREDICT, headers, dict(headers), None)
    assert access._ring is not None
    assert 0 < len(access._ring._bearers) <= 3
    assert all(header.endswith(ALICE.encode()) for header in access._ring._bearers if header)


# The file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = tmp_path / "keys"
    found.write_text(OF_ALICE + "\n")
    return found


def replace(file: Path, text: str) -> None:
    """In one step, as editors and orchestrators do."""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.replace(file)


def test_replaced(file: Path) -> None:
    """A new file holds from the next look on; what did not change is not read."""
    access = Access(Settings(keys_file=str(file)))
    assert not access.reload()
    replace(file, OF_BOB)
    assert (may(access, ALICE), may(access, BOB)) == (True, False)
    assert access.reload()
    assert (may(access, ALICE), may(access, BOB)) == (False, True)
    assert not access.reload()


def test_replaced_by_the_same_size_and_time(file: Path) -> None:
    """A file put there with the old one's size and time is another file."""
    access, before = Access(Settings(keys_file=str(file))), file.stat()
    new = file.with_suffix(".new")
    new.write_text(line_of(BOB, "alice", ["predict"]) + "\n")
    os.utime(new, ns=(before.st_atime_ns, before.st_mtime_ns))
    new.replace(file)
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert access.reload()
    assert may(access, BOB)


def test_written_in_place(file: Path) -> None:
    """A line added behind the others lets its key in; a line cut out keeps it out."""
    access = Access(Settings(keys_file=str(file)))
    with file.open("a") as opened:
        opened.write(OF_BOB)
    assert access.reload()
    assert (may(access, ALICE), may(access, BOB)) == (True, True)
    file.write_text("")
    assert access.reload()
    assert (may(access, ALICE), may(access, BOB)) == (False, False)


def test_link(file: Path, tmp_path: Path) -> None:
    """A link that is turned to another file, as Kubernetes does, is a change."""
    other, link = tmp_path / "other", tmp_path / "link"
    other.write_text(OF_BOB)
    link.symlink_to(file)
    access = Access(Settings(keys_file=str(link)))
    link.unlink()
    link.symlink_to(other)
    assert access.reload()
    assert may(access, BOB)


@pytest.mark.parametrize("broken", [b"alice SECRET predict", b"\xff\xfe", None], ids=["line", "bytes", "gone"])
def test_broken(broken: bytes | None, file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that cannot be read leaves the old keys in force and is complained of once; a mended one holds."""
    access = Access(Settings(keys_file=str(file)))
    if broken is None:
        file.unlink()
    else:
        file.write_bytes(broken)
    assert [access.reload() for _ in range(3)] == [False] * 3
    assert (may(access, ALICE), may(access, BOB)) == (True, False)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert str(file) in record.message
    assert record.message.endswith("the keys read before stay")
    assert "SECRET" not in caplog.text
    replace(file, OF_BOB)
    assert access.reload()
    assert (may(access, ALICE), may(access, BOB)) == (False, True)


def make_pipe(file: Path) -> None:
    os.mkfifo(file)


def make_device(file: Path) -> None:
    file.symlink_to("/dev/zero")


def make_folder(file: Path) -> None:
    file.mkdir()


def make_huge(file: Path) -> None:
    file.touch()
    os.truncate(file, 2**40)


STRANGE = {
    "a pipe": (make_pipe, "expected a regular file, found a pipe"),
    "a device": (make_device, "expected a regular file, found a device"),
    "a folder": (make_folder, "Is a directory"),
    "a terabyte": (make_huge, "expected at most 1048576 bytes, found more"),
}


@pytest.mark.timeout(10)
@pytest.mark.parametrize("what", STRANGE)
def test_no_file_for_a_moment(what: str, file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is not a short file is never waited for: it is complained of once, the old keys hold, the next file too."""
    make, reason = STRANGE[what]
    access = Access(Settings(keys_file=str(file)))
    file.unlink()
    make(file)
    assert [access.reload() for _ in range(3)] == [False] * 3
    (record,) = caplog.records
    assert record.message == f"LECTERN_KEYS_FILE: {file}: {reason}; the keys read before stay"
    assert (may(access, ALICE), may(access, BOB)) == (True, False)
    with pytest.raises(SettingsError, match=reason):
        Access(Settings(keys_file=str(file)))
    if file.is_dir():
        file.rmdir()
    replace(file, OF_BOB)
    assert access.reload()
    assert (may(access, ALICE), may(access, BOB)) == (False, True)


def test_byte_order_mark(file: Path) -> None:
    """A file that Notepad saved has a mark before its first key, and other ends of lines."""
    file.write_bytes(f"{OF_ALICE}\r\n{OF_BOB}\r\n".encode("utf-8-sig"))
    access = Access(Settings(keys_file=str(file)))
    assert (may(access, ALICE), may(access, BOB)) == (True, True)


@pytest.mark.parametrize("content", [None, b"alice", b"\xff"], ids=str)
def test_broken_at_start(content: bytes | None, file: Path) -> None:
    """At start there are no old keys: it is an error, and nobody is let in."""
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError, match=str(file)):
        Access(Settings(keys_file=str(file)))


def test_an_empty_file_lets_nobody_in(file: Path) -> None:
    """Somebody who withdraws the last key does not open the door."""
    file.write_text("# nobody\n")
    access = open_access(Settings(keys_file=str(file)))
    assert access is not None
    assert (access.has_keys, may(access, ALICE)) == (True, False)


def test_watched(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is looked after without a request, and goes on being so after an error nobody foresaw."""
    monkeypatch.setattr("service.auth.access.LOOK_SECONDS", 0.001)
    access = open_access(Settings(keys_file=str(file)))
    assert access is not None
    monkeypatch.setattr("service.auth.access._stamp", lambda status: 1 / 0)
    time.sleep(0.01)
    monkeypatch.undo()
    monkeypatch.setattr("service.auth.access.LOOK_SECONDS", 0.001)
    replace(file, OF_BOB)
    until = time.monotonic() + 5
    while not may(access, BOB) and time.monotonic() < until:
        time.sleep(0.001)
    assert (may(access, ALICE), may(access, BOB)) == (False, True)
    monkeypatch.setattr("service.auth.access.LOOK_SECONDS", 1e6)  # and let the thread be


def test_a_new_file_forgives_nothing(file: Path) -> None:
    """Whoever has no tokens has none after a change of other keys; with another limit it starts afresh."""
    slow = line_of(ALICE, "alice", ["predict"], rate=0.001)
    replace(file, slow)
    access = Access(Settings(keys_file=str(file)))

    def bucket() -> TokenBucket:
        headers = [(b"x-api-key", ALICE.encode())]
        found = access.check(PREDICT, headers, dict(headers), None)
        assert isinstance(found, Caller)
        assert found.bucket is not None
        return found.bucket

    assert [bool(bucket().wait()) for _ in range(2)] == [False, True]
    replace(file, slow + "\n" + OF_BOB)
    assert access.reload()
    assert bucket().wait()
    replace(file, slow.replace("0.001", "0.002"))
    assert access.reload()
    assert not bucket().wait()
