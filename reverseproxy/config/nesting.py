"""Limit the nesting of YAML."""

from __future__ import annotations

__all__ = ["MAX_DEPTH", "check_nesting"]

import contextlib
from typing import Any, Final

import yaml

MAX_DEPTH: Final = 64
"""The deepest nesting of a document."""

# The one in C takes a fifth of the time, but PyYAML can be built without it.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def check_nesting(text: str) -> None:
    """
    Refuse YAML that is nested too deeply.

    Iterating over its events takes no stack, while the loader in C may overflow the stack and
    crash the process: it has a limit of its own only since PyYAML 6.0.4.

    @raise RecursionError: if it is nested more deeply than L{MAX_DEPTH}.
    @raise yaml.YAMLError: if it is not YAML.
    """
    try:
        _follow(text)
    except yaml.MarkedYAMLError as error:
        # As a bracket may turn out to begin a key, the scanner reads up to 1024 characters
        # before it yields an event for it.  It may raise an error there, such as for its own
        # limit of nesting, before there are events that exceed ours.  So look at the events of
        # the text up to the error.
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
    # It may be invalid YAML, as it is only the beginning of a document.
    with contextlib.suppress(yaml.YAMLError):
        _follow(beginning)
