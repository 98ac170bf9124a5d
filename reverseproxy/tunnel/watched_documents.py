"""Documents in files that operators change while the process runs: lists of tokens, and of servers."""

from __future__ import annotations

__all__ = ["parse_document"]

import json
from typing import Any

import yaml

from reverseproxy.config.nesting import check_nesting
from reverseproxy.tunnel.watched_files import unusable

# The loader in C takes a fifth of the time; PyYAML may be built without it.
_YamlLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


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
        raise unusable(path, reason, error.lineno, error.colno) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line, column = (0, 0) if mark is None else (mark.line + 1, mark.column + 1)
        raise unusable(path, "not valid YAML", line, column) from None
    except (yaml.YAMLError, RecursionError, ValueError, LookupError, AttributeError, TypeError):
        # Includes dates and numbers with impossible values, and those that are not what their tags say.
        raise unusable(path, "not a valid document") from None
