"""Documents in files that operators change while the process runs: lists of tokens, and of servers."""

from __future__ import annotations

__all__ = ["REPEATED", "parse_document"]

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

import yaml

from reverseproxy.config._document import Object
from reverseproxy.config.nesting import check_nesting
from reverseproxy.errors import OptionsError
from reverseproxy.problems import Place, Problem
from reverseproxy.tunnel.plugin_options import is_plain_key
from reverseproxy.tunnel.watched_files import unusable

# The loader in C takes a fifth of the time; PyYAML may be built without it.
_YamlLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

REPEATED: Final = "this key occurs more than once"
"""The error about a repeated key."""

_MERGE: Final = "tag:yaml.org,2002:merge"


def parse_document(path: str, text: str) -> Any:
    """
    Parse the text of a file: as JSON if its name ends in C{.json}, otherwise as YAML.

    @raise OptionsError: if it is malformed, with the line, or has repeated keys, with their places; no
        value is quoted, as it may be secret.
    """
    try:
        if path.endswith(".json"):
            document, repeated = _parse_json(path, text)
        else:
            check_nesting(text)
            document, repeated = _parse_yaml(path, text)
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
    if repeated:
        raise OptionsError(*(Problem.at(place, REPEATED) for place in dict.fromkeys(repeated)))
    return document


def _parse_json(path: str, text: str) -> tuple[Any, list[Place]]:
    """Return a document, and the places of its repeated keys."""
    repeating: list[Object] = []

    def make(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) == len(pairs):
            return made
        repeating.append(Object(pairs))
        return repeating[-1]

    document = json.loads(text, object_pairs_hook=make)
    return document, list(_repeated_in_json(document, Place(path))) if repeating else []


def _repeated_in_json(value: Any, place: Place) -> Iterator[Place]:
    if isinstance(value, Object):
        yield from (_within(place, key) for key in value.repeated)
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _repeated_in_json(item, _within(place, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _repeated_in_json(item, place / index)


def _parse_yaml(path: str, text: str) -> tuple[Any, list[Place]]:
    """Return a document, and the places of its repeated keys."""
    loader = _YamlLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None, []
        # Before the document is made, which puts merged keys among the others.
        repeated = list(_repeated_in_yaml(node, Place(path), set()))
        return loader.construct_document(node), repeated
    finally:
        loader.dispose()


def _repeated_in_yaml(node: yaml.Node, place: Place, visited: set[int]) -> Iterator[Place]:
    """
    Yield the places of repeated keys.

    @param visited: the ids of nodes, which have several places if there are aliases.
    """
    if id(node) in visited:
        return
    visited.add(id(node))
    if isinstance(node, yaml.MappingNode):
        own = [(name, item) for name, item in node.value if name.tag != _MERGE]
        yield from (_within(place, key) for key in _twice(name.value for name, _ in own))
        for name, item in node.value:
            yield from _repeated_in_yaml(item, _within(place, name.value), visited)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _repeated_in_yaml(item, place / index, visited)


def _twice(names: Iterable[Any]) -> Iterator[str]:
    """Yield the texts that occur more than once, once each; keys that are no texts are errors elsewhere."""
    counts: dict[str, int] = {}
    for name in names:
        if isinstance(name, str):
            counts[name] = counts.get(name, 0) + 1
    return (name for name, count in counts.items() if count > 1)


def _within(place: Place, key: Any) -> Place:
    """Return the place of a key, or of its object if the key might be a secret."""
    return place / key if is_plain_key(key) else place
