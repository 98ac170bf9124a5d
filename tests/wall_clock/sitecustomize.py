"""
Gives a process a wall clock that a test sets, by being on its C{PYTHONPATH}.

The file that C{WALL_CLOCK_OFFSET} names has a double: the seconds that the
clock is ahead of the machine's.  It is mapped, so that a change counts at once.
Only C{time.time} is changed; what the kernel measures goes on, as it does when
somebody sets a machine's clock.
"""

import mmap
import os
import struct
import time

_real = time.time
with open(os.environ["WALL_CLOCK_OFFSET"], "rb") as _file:
    _offset = mmap.mmap(_file.fileno(), 8, access=mmap.ACCESS_READ)


def _wall() -> float:
    return _real() + struct.unpack("d", _offset[:])[0]


time.time = _wall
