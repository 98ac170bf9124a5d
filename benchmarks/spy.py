"""
Sampling our processes with py-spy while a load is on.
"""

from __future__ import annotations

__all__ = ["SAMPLES_PER_SECOND", "Spy", "SpyError"]

import subprocess
from collections.abc import Mapping
from pathlib import Path

SAMPLES_PER_SECOND = 250


class SpyError(Exception):
    """py-spy saw nothing."""


class Spy:
    """Samplers of several processes, by role; to be used as a context manager."""

    def __init__(self, program: Path, directory: Path, pids: Mapping[str, int], seconds: float) -> None:
        self._directory = directory
        self._seconds = seconds
        self._samplers: dict[str, subprocess.Popen[bytes]] = {}
        self._pids = pids
        self._program = program

    def __enter__(self) -> Spy:
        for role, pid in self._pids.items():
            # Nonblocking: stopping the process for each sample made those in system calls look
            # several times as frequent as they are.
            command = [
                *(str(self._program), "record", "--nonblocking", "--pid", str(pid), "--function"),
                *("--format", "raw", "--rate", str(SAMPLES_PER_SECOND)),
                *("--duration", f"{self._seconds:.0f}", "--output", str(self._directory / f"{role}.raw")),
            ]
            (self._directory / f"{role}.raw").unlink(missing_ok=True)
            with (self._directory / f"{role}.spy.log").open("wb") as output:
                try:
                    sampler = subprocess.Popen(command, stdout=output, stderr=output, process_group=0)
                except OSError as error:
                    self.__exit__()
                    raise SpyError(f"py-spy does not start: {error}") from error
            self._samplers[role] = sampler
        return self

    def __exit__(self, *_: object) -> None:
        for sampler in self._samplers.values():
            if sampler.poll() is None:
                sampler.kill()
            sampler.wait()

    def stacks(self) -> dict[str, str]:
        """
        Wait until all have seen enough.

        @return: what each wrote, by role.
        @raise SpyError: if one saw nothing.
        """
        found = {}
        for role, sampler in self._samplers.items():
            path = self._directory / f"{role}.raw"
            try:
                sampler.wait(30)
                found[role] = path.read_text()
            except (subprocess.TimeoutExpired, OSError) as error:
                log = (self._directory / f"{role}.spy.log").read_text(errors="replace")
                raise SpyError(f"py-spy saw nothing of the {role}: {log.strip()[-300:]}") from error
        return found
