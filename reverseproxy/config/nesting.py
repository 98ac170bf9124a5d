"""A bound for how deeply YAML may be nested."""

from __future__ import annotations

__all__ = ["MAX_DEPTH", "check_nesting"]

import contextlib
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
    loader in C may overflow the stack and end the process: only since PyYAML
    6.0.4 has that a bound of its own.

    @raise RecursionError: if it is nested more deeply than L{MAX_DEPTH}.
    @raise yaml.YAMLError: if it is no YAML.
    """
    try:
        _follow(text)
    except yaml.MarkedYAMLError as error:
        # Since a bracket may turn out to begin a key, the scanner reads up to
        # 1024 characters on before there is an event for it.  What it refuses
        # there, such as what is too deep by its own bound, comes before the
        # events of what we refuse, unless the text ends there.
        if error.problem_mark is not None:
            _refuse_depth(text[: error.problem_mark.index])
        raise


def _follow(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise RecursionError("nested too deeply")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _refuse_depth(beginning: str) -> None:
    # That it is no YAML is no wonder, as it is not all of a document.
    with contextlib.suppress(yaml.YAMLError):
        _follow(beginning)
