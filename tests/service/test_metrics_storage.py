"""Where metrics lie, and what is done when there is no room for them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from models.paths import REPOSITORY
from service.telemetry.metrics_storage import (
    RESERVE,
    ROOM_BYTES,
    free_bytes,
    keep_reserve,
    metrics_folder,
    require_room,
)


def test_in_memory(tmp_path: Path) -> None:
    """A folder of this user's own for each home, which nobody else may read."""
    one = metrics_folder(tmp_path / "one", 1, tmp_path)
    assert one is not None
    assert one != metrics_folder(tmp_path / "two", 1, tmp_path)
    assert one.parent == tmp_path / f"lectern-{os.getuid()}"
    assert one.parent.stat().st_mode & 0o777 == 0o700


def test_no_room_in_memory(tmp_path: Path) -> None:
    """Where there is no room for all the processes another place is taken."""
    processes = free_bytes(tmp_path) // ROOM_BYTES + 2**20
    assert metrics_folder(tmp_path, processes, tmp_path) is None


def test_somebody_else_s(tmp_path: Path) -> None:
    """A link in the folder's place is not followed, and no such place is none."""
    (tmp_path / f"lectern-{os.getuid()}").symlink_to(tmp_path)
    assert metrics_folder(tmp_path, 1, tmp_path) is None
    assert metrics_folder(tmp_path, 1, tmp_path / "nowhere") is None


def test_reserve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is set aside is really taken; where nothing is shared nothing is set aside."""
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    keep_reserve()
    require_room()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    keep_reserve()
    assert (tmp_path / RESERVE).stat().st_blocks * 512 == 2 * ROOM_BYTES
    require_room()
    assert (tmp_path / RESERVE).exists()


# The file system of a megabyte, with or without the reserve, is full; a process begins to keep metrics there.
FULL = """
mount -t tmpfs -o size={size} tmpfs "$PROMETHEUS_MULTIPROC_DIR" || exit 77
[ {reserve} = 0 ] || "$0" -c "from service.telemetry.metrics_storage import keep_reserve; keep_reserve()"
dd if=/dev/zero of="$PROMETHEUS_MULTIPROC_DIR/full" bs=64k 2> /dev/null
exec "$0" -c "import service.telemetry.metrics as m; m.REQUESTS.labels('x', '1', 'ok').inc(); print('counted')"
"""


@pytest.mark.parametrize(("size", "reserve", "status"), [("8m", 1, 0), ("8m", 0, 1)])
def test_full(size: str, reserve: int, status: int, tmp_path: Path) -> None:
    """On a full disk the next process takes the reserve; without one it ends in one line, and not by a signal."""
    script = FULL.format(size=size, reserve=reserve)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LECTERN_")}
    more = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PYTHONPATH": str(REPOSITORY), "LECTERN_LOG": "text"}
    try:
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", script, sys.executable], env=kept | more, capture_output=True, text=True
        )
    except FileNotFoundError:
        pytest.skip("there is no unshare here")
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"no file system of one's own may be mounted here: {done.stderr.strip()}")
    assert done.returncode == status, done.stderr
    if status:
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"lectern: metrics need {ROOM_BYTES} free bytes in {tmp_path}, found ")
    else:
        assert done.stdout == "counted\n"
