"""Waiting until a moment, to some microseconds, without keeping a core busy.

gevent waits in whole milliseconds, because libev rounds up what it gives to ``epoll_wait``. A timer that is a file
(``timerfd_create(2)``) wakes the same loop when it is due. Without one (not Linux) a request leaves up to a
millisecond late, which is reported like any other lag.
"""

import ctypes
import os
import sys
from time import perf_counter

import gevent
from gevent.hub import get_hub

_CLOCK_MONOTONIC, _NONBLOCKING, _READ = 1, os.O_NONBLOCK, 1


class _Time(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Setting(ctypes.Structure):
    _fields_ = (("interval", _Time), ("value", _Time))


class Timer:
    """Wakes one greenlet; to be closed after use."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
        self._file = self._library.timerfd_create(_CLOCK_MONOTONIC, _NONBLOCKING) if self._library else -1
        self._watcher = get_hub().loop.io(self._file, _READ) if self._file >= 0 else None

    def wait_until(self, moment: float) -> bool:
        """Return at a moment of ``perf_counter``, at once when it is over; whether there was anything to wait for."""
        left = moment - perf_counter()
        if left <= 0:
            return False
        if self._watcher is None or self._library is None:
            gevent.sleep(left)
            return True
        seconds, rest = divmod(max(1, int(left * 1e9)), 1_000_000_000)
        setting = _Setting(_Time(0, 0), _Time(seconds, rest))
        self._library.timerfd_settime(self._file, 0, ctypes.byref(setting), None)
        get_hub().wait(self._watcher)
        os.read(self._file, 8)
        return True

    def close(self) -> None:
        """Give the file back."""
        if self._watcher is not None:
            self._watcher.close()
            os.close(self._file)
            self._watcher = None
