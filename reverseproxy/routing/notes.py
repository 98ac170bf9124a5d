"""What is found while a router is built."""

from __future__ import annotations

__all__ = ["Notes"]

from reverseproxy.errors import Problem


class Notes:
    """
    Collects what is wrong with a router's configuration, and what has no effect.

    @ivar errors: what is wrong.
    @ivar warnings: what has no effect.
    """

    def __init__(self, file: str, where: str) -> None:
        """
        @param file: the configuration file.
        @param where: the router's place in it.
        """
        self.errors: list[Problem] = []
        self.warnings: list[Problem] = []
        self._file = file
        self._where = where

    def error(self, path: str, message: str) -> None:
        """Something is wrong at a place below the router."""
        self.errors.append(self._problem(path, message))

    def warn(self, path: str, message: str) -> None:
        """Something has no effect at a place below the router."""
        self.warnings.append(self._problem(path, message))

    def _problem(self, path: str, message: str) -> Problem:
        return Problem(self._file, ".".join(part for part in (self._where, path) if part), message)
