"""
Substitute environment variables in the texts of a configuration file: pure.

C{${NAME}} is replaced by the value of a variable, C{${NAME:-text}} by the text if the variable
is empty or not set, and C{$${} by C{${}.  Only files have variables: a document that comes
through the admin API, or from another program, must not be able to read the environment.
"""

from __future__ import annotations

__all__ = ["NO_VARIABLE", "TEMPLATES", "substitute"]

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from reverseproxy.problems import Key

TEMPLATES: Final = frozenset({"substitution", "body"})
"""Keys whose texts use dollar signs and braces themselves."""

_VARIABLE: Final = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}|\$\{")


NO_VARIABLE: Final = "${ does not begin a variable; write ${NAME} or ${NAME:-text}, or $${ for ${ itself"
"""The warning about what looks like a variable, and is none."""


def substitute(value: Any, environ: Mapping[str, str]) -> tuple[Any, list[tuple[tuple[Key, ...], str]]]:
    """
    Substitute variables.

    @param value: a document, which is changed in place.
    @return: the document, or the new text if it is one; and the problems, with their keys.
    """
    problems: list[tuple[tuple[Key, ...], str]] = []
    found = _walk(value, (), environ, problems)
    return found, problems


def _walk(value: Any, keys: tuple[Key, ...], environ: Mapping[str, str], problems: list[Any]) -> Any:
    if isinstance(value, str):
        return _text(value, keys, environ, problems) if "${" in value else value
    for key, item in _items(value):
        if isinstance(item, str) and "${" not in item:
            continue  # the common case
        if key in TEMPLATES:
            continue
        value[key] = _walk(item, (*keys, key), environ, problems)
    return value


def _items(value: Any) -> Iterator[tuple[Key, Any]]:
    if isinstance(value, dict):
        yield from list(value.items())
    elif isinstance(value, list):
        yield from enumerate(value)


def _text(text: str, keys: tuple[Key, ...], environ: Mapping[str, str], problems: list[Any]) -> str:
    def put(match: re.Match[str]) -> str:
        name, default = match[1], match[2]
        if name is None:
            if not match[0].startswith("$$"):
                problems.append((keys, NO_VARIABLE))
            return "${"
        if default is not None and "${" in default:
            problems.append((keys, f"a variable can't stand in what is used instead of {name}"))
            return match[0]
        known = environ.get(name)
        if known is None or (not known and default is not None):
            if default is not None:
                return default
            problems.append(
                (
                    keys,
                    f"the environment variable {name} is not set; write ${{{name}:-text}} to do without, or "
                    f"$${{{name}}} for the text itself",
                )
            )
            return match[0]
        return known

    return _VARIABLE.sub(put, text)
