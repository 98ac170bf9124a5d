"""Small files that operators change while the process runs."""

from __future__ import annotations

__all__ = ["Signature", "parse_document", "read_text", "signature"]

import json
import os
from typing import Any, TypeAlias

import yaml

from reverseproxy.config.nesting import check_nesting

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
    except OSError:
        return None
    return (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def read_text(path: str, limit: int) -> str:
    """
    Read a whole file as UTF-8.

    @param limit: bytes, at most.
    @raise OSError: if it can't be read.
    @raise ValueError: if it is larger, or not UTF-8; its content is not quoted.
    """
    with open(path, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"{path} is larger than the {limit} bytes allowed")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8, at byte {error.start}") from None


def parse_document(path: str, text: str) -> Any:
    """
    Parse the text of a file: as JSON if its name ends in C{.json}, otherwise as YAML.

    @raise ValueError: if it is malformed, with the line; nothing is quoted, as it may be secret.
    """
    try:
        if path.endswith(".json"):
            return json.loads(text)
        check_nesting(text)
        return yaml.load(text, Loader=_YamlLoader)  # noqa: S506 - both loaders are the safe ones
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: {error.msg}") from None
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f", line {error.problem_mark.line + 1}"
        raise ValueError(f"{path}{line}: not valid YAML") from None
    except (yaml.YAMLError, RecursionError, ValueError):
        # Includes dates and numbers with impossible values.
        raise ValueError(f"{path}: not a valid document") from None
