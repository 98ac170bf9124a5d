"""A bound for how deeply YAML may be nested."""

from __future__ import annotations

__all__ = ["MAX_DEPTH", "check_nesting"]

from typing import Any, Final

import yaml

MAX_DEPTH: Final = 64
"""How deeply a document may be nested."""

# The one in C takes a fifth of the time, but PyYAML can be built without it.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def check_nesting(text: str) -> None:
    """
    Refuse YAML that is nested too deeply.

    Going through its events takes no stack, however deep it is, where the
    loader in C would overflow the stack and end the process.

    @raise RecursionError: if it is nested more deeply than L{MAX_DEPTH}.
    @raise yaml.YAMLError: if it is no YAML.
    """
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise RecursionError("nested too deeply")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
