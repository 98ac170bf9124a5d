"""Read the values of a document that no model describes."""

from __future__ import annotations

__all__ = ["REPEATED", "FreeValues"]

import math
import re
from typing import Any, Final

from reverseproxy.config._document import NO_VARIABLES, Object
from reverseproxy.config._environment import TEMPLATES
from reverseproxy.config.diagnostics import Diagnostics
from reverseproxy.problems import Place

REPEATED: Final = "this key occurs more than once; the last one counts"
"""The warning about a repeated key."""


_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)[^}]*\}")


class FreeValues:
    """Reads values that no model describes: warns of repeated keys and variables, refuses infinite ones."""

    def __init__(self, findings: Diagnostics) -> None:
        self._findings = findings

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
        if "${" in text and (found := _VARIABLE.search(text)) and place.name not in TEMPLATES:
            if self._findings.is_wrong(place):
                return  # the variable is not set
            self._findings.warn(place, f"${{{found[1]}}} is taken as it is written: {NO_VARIABLES}")
