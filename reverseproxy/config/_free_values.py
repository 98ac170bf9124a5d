"""Read the values of a document that no model describes."""

from __future__ import annotations

__all__ = ["REPEATED", "FreeValues", "half_characters"]

import math
import re
from collections.abc import Iterator
from typing import Any, Final

from reverseproxy.config._document import NO_VARIABLES, Object
from reverseproxy.config._environment import TEMPLATES
from reverseproxy.config.diagnostics import Diagnostics
from reverseproxy.problems import Place

REPEATED: Final = "this key occurs more than once; the last one counts"
"""The warning about a repeated key."""


_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)[^}]*\}")


_HALF: Final = re.compile("[\ud800-\udfff]")


def half_characters(value: Any, place: Place) -> Iterator[Place]:
    """Yield the places of texts and keys that have half of a character (a lone surrogate of UTF-16)."""
    if isinstance(value, str):
        if _HALF.search(value):
            yield place
    elif isinstance(value, dict):
        for name, item in value.items():
            if _HALF.search(name):
                yield place / name
            yield from half_characters(item, place / name)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from half_characters(item, place / index)


class FreeValues:
    """Reads values that no model describes: warns of repeated keys and variables, refuses infinite ones."""

    def __init__(self, findings: Diagnostics, substituted: bool = False) -> None:
        """
        @param substituted: whether variables have been substituted, so that what looks like one is none.
        """
        self._findings = findings
        self._substituted = substituted

    def read(self, value: Any, place: Place) -> Any:
        """Return a value that no model describes, after warning of its repeated keys."""
        self._findings.seen(place)
        if isinstance(value, float) and not math.isfinite(value):
            # Such as 1e999, or inf in TOML: the configuration could not be shown as JSON.
            self._findings.error(place, f"expected a finite number, got the number {value}")
        if isinstance(value, str):
            self._verbatim(value, place)
        if isinstance(value, Object):
            for name in value.repeated:
                self._findings.warn(place / name, REPEATED)
            return {name: self.read(item, place / name) for name, item in value.items()}
        if isinstance(value, list):
            return [self.read(item, place / index) for index, item in enumerate(value)]
        return value

    def _verbatim(self, text: str, place: Place) -> None:
        """Warn of a text that looks like it has an environment variable."""
        if (
            not self._substituted
            and "${" in text
            and (found := _VARIABLE.search(text))
            and place.name not in TEMPLATES
        ):
            if self._findings.is_wrong(place):
                return  # the variable is not set
            self._findings.warn(place, f"${{{found[1]}}} is taken as it is written: {NO_VARIABLES}")
