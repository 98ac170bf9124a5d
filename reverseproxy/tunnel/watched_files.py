"""Small files that operators change while the process runs."""

from __future__ import annotations

__all__ = ["Signature", "parse_document", "read_text", "signature"]

import json
import os
from typing import Any, TypeAlias

import yaml

from reverseproxy.config.nesting import check_nesting
from reverseproxy.errors import OptionsError
from reverseproxy.problems import Place, Problem

Signature: TypeAlias = tuple[int, ...] | None

# The loader in C takes a fifth of the time; PyYAML may be built without it.
_YamlLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def signature(path: str) -> Signature:
    """
    Return a value that changes whenever a file does, without reading it; L{None} if there is no file.

    A file that was replaced by a rename has another inode, so that even a change that keeps size and
    time is detected.
    """
    try:
        stat = os.stat(path)
    except (OSError, ValueError):
        return None
    return (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def read_text(path: str, limit: int) -> str:
    """
    Read a whole file as UTF-8.

    @param limit: bytes, at most.
    @raise OSError: if it can't be read.
    @raise OptionsError: if it is larger, or not UTF-8; its content is not quoted.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except ValueError:  # a character that no path can have
        raise _unusable(path, "is not a path") from None
    if len(data) > limit:
        raise _unusable(path, f"is larger than the {limit} bytes allowed")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _unusable(path, f"is not UTF-8, at byte {error.start}") from None


def parse_document(path: str, text: str) -> Any:
    """
    Parse the text of a file: as JSON if its name ends in C{.json}, otherwise as YAML.

    @raise OptionsError: if it is malformed, with the line; nothing is quoted, as it may be secret.
    """
    try:
        if path.endswith(".json"):
            return json.loads(text)
        check_nesting(text)
        return yaml.load(text, Loader=_YamlLoader)  # noqa: S506 - both loaders are the safe ones
    except json.JSONDecodeError as error:
        reason = f"not valid JSON: {error.msg[:1].lower()}{error.msg[1:]}"
        raise _unusable(path, reason, error.lineno, error.colno) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line, column = (0, 0) if mark is None else (mark.line + 1, mark.column + 1)
        raise _unusable(path, "not valid YAML", line, column) from None
    except (yaml.YAMLError, RecursionError, ValueError, LookupError, AttributeError, TypeError):
        # Includes dates and numbers with impossible values, and those that are not what their tags say.
        raise _unusable(path, "not a valid document") from None


def _unusable(path: str, reason: str, line: int = 0, column: int = 0) -> OptionsError:
    return OptionsError(Problem.at(Place(path, line=line, column=column), reason))
