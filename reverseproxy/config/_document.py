"""
Parse JSON.

Objects remember which of their keys occur twice.  Syntax errors have a line and a column.
"""

from __future__ import annotations

__all__ = [
    "MOST_BITS",
    "NO_VARIABLES",
    "TOO_DEEP",
    "Object",
    "SyntaxProblem",
    "at_position",
    "long_integer",
    "parse_json",
    "problem_at",
]

import json
import re
from collections.abc import Iterable
from typing import Any, Final

TOO_DEEP: Final = "is nested too deeply"
"""The reason why a document is refused that is nested too deeply."""


class SyntaxProblem(Exception):
    """
    A syntax error in JSON, YAML or TOML.

    @ivar line: its line, from 1; 0 if that is not known.
    @ivar column: its column, likewise.
    """

    def __init__(self, reason: str, line: int = 0, column: int = 0) -> None:
        super().__init__(reason)
        self.line = line
        self.column = column


class Object(dict[str, Any]):
    """
    An object of a document.

    @ivar repeated: keys that occur more than once; the last value is used.
    """

    def __init__(self, pairs: Iterable[tuple[str, Any]]) -> None:
        super().__init__()
        self.repeated: list[str] = []
        for name, value in pairs:
            if name in self:
                self.repeated.append(name)
                del self[name]
            self[name] = value


NO_VARIABLES: Final = (
    "there are variables in texts of files only; elsewhere, have envsubst or the like write the file, or "
    "name a file or an environment variable where a key for that exists"
)

_QUOTES: Final = "'\N{LEFT SINGLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}`"
_CURLY_QUOTES: Final = (
    "\N{LEFT DOUBLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK}\N{DOUBLE LOW-9 QUOTATION MARK}"
)
_WORD: Final = re.compile(r"[A-Za-z_][\w-]*")
_LIKE_YAML: Final = re.compile(r"(?:---|%YAML|#.*\n|\s)*[\w$-]+[ \t]*:(?:\s|$)")
_LITERALS: Final = {"True": "true", "False": "false", "None": "null", "nil": "null", "undefined": "null"}


def problem_at(line: int, column: int, problem: str) -> SyntaxProblem:
    """Return a syntax error; the line and the column count from 1."""
    return SyntaxProblem(problem, line, column)


def parse_json(text: str) -> Any:
    """
    Parse JSON.

    @raise SyntaxProblem: if it is not JSON.
    """

    def refuse(constant: str) -> Any:
        raise SyntaxProblem(f"{constant} is not JSON")

    if not text.strip():
        raise SyntaxProblem("is empty")
    try:
        return json.loads(text, object_pairs_hook=Object, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise _not_json(text, error) from None
    except RecursionError:
        raise SyntaxProblem(TOO_DEEP) from None
    except ValueError:
        raise long_integer(text, "JSON") from None


MOST_BITS: Final = 14_000
"""The size of an integer that can be shown in decimal; Python limits only those that are written so."""

_TOO_LONG: Final = re.compile(r"\d{4300}|0x[\da-fA-F_]{3500}|0[bo][0-7_]{4300}")


def long_integer(text: str, language: str) -> SyntaxProblem:
    """Return the error for an integer with more digits than Python parses."""
    found = _TOO_LONG.search(text)
    problem = f"not {language}: an integer has too many digits"
    return SyntaxProblem(problem) if found is None else at_position(text, found.start(), problem)


def _not_json(text: str, error: json.JSONDecodeError) -> SyntaxProblem:
    """Return the error for where the parser has stopped, with a guess what was meant."""
    if _LIKE_YAML.match(text):
        problem = "not JSON: this looks like YAML; call the file .yaml"
        return problem_at(error.lineno, error.colno, problem)
    start = error.pos
    before = text[:start].rstrip()
    if text[start : start + 1] == ",":  # since Python 3.13, that is where it stops
        before, start = text[: start + 1], start + 1
    while text[start : start + 1].isspace():
        start += 1
    hint = _hint(text[start : start + 80], before[-1:])
    if hint:
        return at_position(text, start, f"not JSON: {hint}")
    reason = error.msg[:1].lower() + error.msg[1:]
    if start >= len(text):
        reason = "it ends too early; a bracket or a quotation mark is not closed, or a part is missing"
    return problem_at(error.lineno, error.colno, f"not JSON: {reason}")


def _hint(rest: str, before: str) -> str:
    """
    Guess which mistake a syntax error is.

    @param rest: the text from the error on.
    @param before: the last character before it that is not a blank.
    """
    first = rest[:1]
    if rest.startswith(("//", "/*", "#")):
        return "JSON has no comments; take them out, or call the file .yaml and write them with #"
    if first in ("}", "]") and before == ",":
        return f"a comma before {first}; the last entry of a list or an object has none behind it"
    if first and first in _QUOTES:
        return f"texts and keys are in double quotation marks, not in {first}"
    if first and first in _CURLY_QUOTES:
        return f'quotation marks are straight ones, ", not {first}'
    if rest.startswith("$"):
        return NO_VARIABLES
    word = _WORD.match(rest)
    if word is None:
        return ""
    if word[0] in _LITERALS:
        return f"write {_LITERALS[word[0]]}, not {word[0]}"
    if rest[word.end() :].lstrip().startswith(":"):
        return f'keys are in double quotation marks: "{word[0]}"'
    return ""


def at_position(text: str, position: int, problem: str) -> SyntaxProblem:
    """Return a syntax error at a position of the text."""
    return problem_at(text.count("\n", 0, position) + 1, position - text.rfind("\n", 0, position), problem)
