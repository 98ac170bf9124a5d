"""The memory available to this process, as far as the system tells."""

from __future__ import annotations

__all__ = ["available_memory"]

import os
from contextlib import suppress
from pathlib import Path


def available_memory(root: Path = Path("/")) -> int | None:
    """
    Return the memory of the machine, or less if the process's control groups allow less (Linux, cgroup v2).

    @param root: where C{proc} and C{sys} are.
    @return: bytes; L{None} if that is not known.
    """
    found: list[int] = []
    with suppress(OSError, ValueError):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with suppress(OSError, StopIteration):
        own = next(
            line.split("::", 1)[1].strip("/ \n")
            for line in (root / "proc/self/cgroup").read_text().splitlines()
            if line.startswith("0::")
        )
        base = root / "sys/fs/cgroup"
        group = base / own
        for each in (group, *group.parents):
            with suppress(OSError, ValueError):
                found.append(int((each / "memory.max").read_text()))  # or "max", which is no bound
            if each == base:
                break
    return min((size for size in found if size > 0), default=None)
