"""
The options of built-in plug-ins, and of entries in their files.

They are read one by one, so that everything that is wrong is found at once.  Each problem has its
place within the options, or in the file.
"""

from __future__ import annotations

__all__ = ["Options", "is_plain_key"]

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from reverseproxy.config._values import describe
from reverseproxy.config.diagnostics import Diagnostics
from reverseproxy.errors import OptionsError
from reverseproxy.problems import PART, Place, Problem

MAX_INTERVAL: Final = 86400.0
"""The most seconds of an interval."""

# A misspelt key looks like this; a token in the place of a key hardly does.
_PLAIN_KEY: Final = re.compile(r"[a-z_]{1,24}", re.IGNORECASE)


def is_plain_key(key: object) -> bool:
    """Return whether a key may be shown, as it looks like a key, and not like a secret."""
    return isinstance(key, str) and _PLAIN_KEY.fullmatch(key) is not None


class Options:
    """
    An object with options; what is wrong with them is collected.

    @ivar values: the options.
    @ivar findings: gets what is wrong.
    @ivar place: the place of the object.
    """

    def __init__(
        self,
        values: Mapping[Any, Any],
        allowed: Sequence[str],
        findings: Diagnostics | None = None,
        place: Place = PART,
    ) -> None:
        """
        Report unknown keys.

        @param allowed: the known keys.
        @param findings: L{None} for new ones.
        """
        self.values = values
        self.findings = Diagnostics() if findings is None else findings
        self.place = place
        self._unknown = False
        keys = f"the keys are {', '.join(allowed)}" if allowed else "it has no keys"
        for key in values:
            if key in allowed:
                continue
            self._unknown = True
            if is_plain_key(key):
                self.error(key, f"unknown key; {keys}")
            else:
                self.whole(f"unknown key (not shown, it might be a secret); {keys}")

    def error(self, key: str, reason: str) -> None:
        """Report what is wrong with an option."""
        self.findings.error(self.place / key, reason)

    def whole(self, reason: str) -> None:
        """Report what is wrong with the object as a whole."""
        self.findings.add(Problem.at(self.place, reason))

    def only_key(self, allowed: Collection[str]) -> str:
        """Return the single key that must be given; empty, after an error, if there is none, or several."""
        given = [key for key in allowed if key in self.values]
        if len(given) == 1:
            return given[0]
        if given or not self._unknown:
            known = ", ".join(allowed)
            self.whole(f"needs exactly one of {known}, got {' and '.join(given) or 'none of them'}")
        return ""

    def text(self, key: str) -> str:
        """Return a text that must not be empty, and may be a secret; empty after an error."""
        if key in self.values:
            return self.nonempty(self.values[key], self.place / key)
        self.error(key, "missing key: a text that is not empty")
        return ""

    def texts(self, key: str, otherwise: str, numbers: bool = False) -> list[str] | None:
        """
        Return a list of texts that must not be empty; L{None} if there is no list.

        @param otherwise: what it means that the list is absent.
        @param numbers: whether a whole number counts as a text, as YAML parses 2222 as one.
        """
        values = self.values.get(key)
        if values is None:
            return None
        if not isinstance(values, (list, tuple)):
            self.error(key, f"must be a list, or absent for {otherwise}")
            return None
        if numbers:
            values = [str(each) if type(each) is int else each for each in values]
        return [self.nonempty(each, self.place / key / number) for number, each in enumerate(values)]

    def nonempty(self, value: object, place: Place) -> str:
        """Return a value that must be a text, and not empty; it is not quoted, as it may be a secret."""
        if isinstance(value, str) and value:
            return value
        hint = "an empty one" if value == "" else f"{type(value).__name__}; put quotes around it"
        self.findings.error(place, f"must be a string that is not empty, got {hint}")
        return ""

    def seconds(self, key: str, default: float, least: float, most: float = MAX_INTERVAL) -> float:
        """Return a number of seconds."""
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
            problem = f"must be a number of seconds, {least:g} to {most:g}, not {describe(value)}"
            self.error(key, problem)
            return default
        return float(value)

    def raise_errors(self) -> None:
        """
        Raise everything that is wrong, if anything is.

        @raise OptionsError: with all problems.
        """
        if self.findings.errors:
            raise OptionsError(*self.findings.errors)
