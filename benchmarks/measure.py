"""
What the kernel says of processes and of the machine, read from C{/proc}.
"""

from __future__ import annotations

__all__ = [
    "busy_seconds",
    "cpu_seconds",
    "established",
    "family",
    "listens",
    "machine",
    "resident_bytes",
]

import os
import platform
from contextlib import suppress
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
ESTABLISHED = "01"
LISTENING = "0A"


def family(pid: int) -> list[int]:
    """A process and all that descend from it, itself first."""
    found = [pid]
    for each in found:
        try:
            children = Path(f"/proc/{each}/task/{each}/children").read_text().split()
        except OSError:
            continue
        found += [int(child) for child in children]
    return found


def cpu_seconds(pid: int) -> tuple[float, float]:
    """
    CPU time that a process has used so far, all its threads: user, and system.

    The kernel counts in ticks of 10 ms.
    """
    # the command may hold spaces and parentheses: what follows it starts at field 3
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) / TICKS, int(fields[12]) / TICKS


def resident_bytes(pid: int) -> int:
    """Resident memory of a process now, shared pages included."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def busy_seconds() -> float:
    """CPU time that the whole machine has spent on anything but idling since it started."""
    user, nice, system, _idle, _iowait, irq, softirq = (
        int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:8]
    )
    return (user + nice + system + irq + softirq) / TICKS


def established(port: int) -> int:
    """How many established TCP connections this machine has accepted on a local IPv4 port."""
    return len(_sockets(port, ESTABLISHED))


def listens(pid: int, port: int) -> bool:
    """
    Whether a process itself listens on a local IPv4 port.

    That a connection succeeds does not say so: another process may have been faster to take the port.
    """
    found: set[str] = set()
    with suppress(OSError):  # the process has ended
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):  # it was closed meanwhile
                found.add(str(descriptor.readlink()))
    return any(f"socket:[{number}]" in found for number in _sockets(port, LISTENING))


def _sockets(port: int, state: str) -> list[str]:
    """Return the inodes of the sockets of a local IPv4 port that are in a state."""
    wanted = f":{port:04X}"
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return [
        fields[9]
        for fields in (line.split() for line in lines)
        if fields[1].endswith(wanted) and fields[3] == state
    ]


def machine() -> str:
    """Describe the machine: processor, number of cores, memory, kernel.  No names."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    virtual = ", virtual" if " hypervisor" in Path("/proc/cpuinfo").read_text() else ""
    return (
        f"{os.cpu_count()} cores of {model}{virtual}, {memory:.0f} GB of memory, "
        f"{platform.system()} {platform.release()}"
    )
