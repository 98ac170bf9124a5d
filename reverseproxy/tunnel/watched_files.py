"""Small files that operators change while we run."""

from __future__ import annotations

__all__ = ["Signature", "parse_document", "read_text", "signature"]

import json
import os
from typing import Any, TypeAlias

import yaml

from reverseproxy.config.nesting import check_nesting

Signature: TypeAlias = tuple[int, ...] | None

# The one in C takes a fifth of the time, but PyYAML can be built without it.
_YamlLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def signature(path: str) -> Signature:
    """
    What changes whenever a file does, without reading it; L{None} if there is none.

    A file that is replaced by renaming another one over it has another inode,
    so that even a change that keeps size and time is seen.
    """
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def read_text(path: str, limit: int) -> str:
    """
    Read a whole file as UTF-8.

    @param limit: the largest size in bytes.
    @raise OSError: if it can't be read.
    @raise ValueError: if it is larger, or not UTF-8; what it holds is not quoted.
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
    Parse the text of a file, as JSON if its name ends in C{.json}, else as YAML.

    @raise ValueError: if it is neither; the place is told, but nothing is
        quoted, since it may be a secret.
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
        # Among others, a date or a number of an impossible value.
        raise ValueError(f"{path}: not a valid document") from None
