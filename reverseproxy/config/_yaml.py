"""
Parse YAML, as what JSON can have.

Only configurations in YAML need this module, and PyYAML.
"""

from __future__ import annotations

__all__ = ["parse_yaml"]

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import yaml

from reverseproxy.config._document import MOST_BITS, TOO_DEEP, Object, SyntaxProblem, at_position, problem_at
from reverseproxy.config.nesting import check_nesting
from reverseproxy.problems import quote

if TYPE_CHECKING:
    from yaml import SafeLoader as _BaseLoader
else:
    _BaseLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_BaseLoader):
    """
    A YAML loader that yields what JSON can have, as MOSN converts YAML to JSON.

    So there are no dates and no numbers with colons, and keys are texts.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 - the attribute's name and type are PyYAML's
        first: [
            (tag, pattern)
            for tag, pattern in resolvers
            if tag.rpartition(":")[2] not in ("timestamp", "int", "float", "value")
        ]
        for first, resolvers in _BaseLoader.yaml_implicit_resolvers.items()
    }

    yaml_constructors = {  # noqa: RUF012 - as above
        tag: constructor
        for tag, constructor in _BaseLoader.yaml_constructors.items()
        if tag is None or tag.rpartition(":")[2] in ("null", "bool", "str", "seq")
    }

    def construct_object_of_json(self, node: yaml.Node) -> Object:
        """Return an L{Object} for a mapping, with merge keys resolved."""
        if not isinstance(node, yaml.MappingNode):
            found = "scalar" if isinstance(node, yaml.ScalarNode) else "sequence"
            problem = f"expected a mapping node, but found {found}"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        own = sum(name.tag != "tag:yaml.org,2002:merge" for name, _ in node.value)
        self.flatten_mapping(node)
        merged = len(node.value) - own
        # A key that overrides a merged one does not count as repeated.
        result = Object(self._pairs(node.value[merged:]))
        for name, value in reversed(list(self._pairs(node.value[:merged]))):
            result.setdefault(name, value)
        return result

    def _pairs(self, nodes: list[tuple[yaml.Node, yaml.Node]]) -> Iterator[tuple[str, Any]]:
        for name, value in nodes:
            yield self._name(name), self.construct_object(value, deep=True)

    def _name(self, node: yaml.Node) -> str:
        name = self.construct_object(node, deep=True)
        if isinstance(name, bool):
            return "true" if name else "false"
        if isinstance(name, str | int | float):
            return str(name)
        raise yaml.constructor.ConstructorError(
            None, None, "a key must be a text or a number", node.start_mark
        )


_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.construct_object_of_json)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"^[-+]?(?:0b[01][01_]*|0o?[0-7][0-7_]*|0|[1-9][0-9_]*|0x[0-9a-fA-F][0-9a-fA-F_]*)$"),
    list("-+0123456789"),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$"),
    list("-+0123456789."),
)


def _construct_int(loader: Any, node: yaml.ScalarNode) -> int:
    written = loader.construct_scalar(node)
    text = written.replace("_", "")
    digits = text.lstrip("+-")
    if re.fullmatch(r"0[0-7]+", digits):
        text = text.replace("0", "0o", 1)
    try:
        number = int(text, 0)
    except ValueError:
        number = None
    if number is None or number.bit_length() > MOST_BITS:
        raise _is_no(node, written, "whole number, or has too many digits")
    return number


def _construct_float(loader: Any, node: yaml.ScalarNode) -> float:
    text = loader.construct_scalar(node)
    try:
        return float(text)
    except ValueError:
        raise _is_no(node, text, "number") from None


def _construct_bool(loader: Any, node: yaml.ScalarNode) -> bool:
    try:
        return bool(loader.construct_yaml_bool(node))
    except KeyError:
        raise _is_no(node, loader.construct_scalar(node), "boolean") from None


def _is_no(node: yaml.Node, text: str, kind: str) -> yaml.constructor.ConstructorError:
    """Return the error for a value that is not what its tag says."""
    return yaml.constructor.ConstructorError(None, None, f"{quote(text)} is no {kind}", node.start_mark)


_Loader.add_constructor("tag:yaml.org,2002:bool", _construct_bool)
_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _construct_float)


def parse_yaml(text: str) -> Any:
    """
    Parse YAML.

    @raise SyntaxProblem: if it is not YAML, or has values that JSON can't have.
    """
    if not text.strip():
        raise SyntaxProblem("is empty")
    try:
        check_nesting(text)
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader underneath
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or error.context or "not understood"
        if mark is None:
            raise SyntaxProblem(f"not YAML: {problem}") from None
        raise problem_at(mark.line + 1, mark.column + 1, f"not YAML: {problem}") from None
    except yaml.reader.ReaderError as error:
        problem = f"not YAML: the character U+{error.character:04X} can't be part of it"
        raise at_position(text, error.position, problem) from None
    except yaml.YAMLError as error:
        raise SyntaxProblem(f"not YAML: {error}") from None
    except UnicodeEncodeError:
        raise SyntaxProblem("not YAML: there is half of a character in it") from None
    except RecursionError:
        raise SyntaxProblem(TOO_DEEP) from None
