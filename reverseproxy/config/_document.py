"""
Parse JSON and YAML.

Objects remember which of their keys occur twice.  Syntax errors have a line and a column.
"""

from __future__ import annotations

__all__ = ["NO_VARIABLES", "Object", "SyntaxProblem", "parse_json", "parse_yaml"]

import json
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

import yaml

from reverseproxy.config.nesting import check_nesting

_DEPTH: Final = "is nested too deeply"


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


def _place(line: int, column: int, problem: str) -> SyntaxProblem:
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
        raise SyntaxProblem(_DEPTH) from None
    except ValueError as error:
        # an integer with too many digits
        raise SyntaxProblem(f"not JSON: {error}") from None


def _not_json(text: str, error: json.JSONDecodeError) -> SyntaxProblem:
    """Return the error for where the parser has stopped, with a guess what was meant."""
    if _LIKE_YAML.match(text):
        problem = "not JSON: this looks like YAML; call the file .yaml"
        return _place(error.lineno, error.colno, problem)
    start = error.pos
    before = text[:start].rstrip()
    if text[start : start + 1] == ",":  # since Python 3.13, that is where it stops
        before, start = text[: start + 1], start + 1
    while text[start : start + 1].isspace():
        start += 1
    hint = _hint(text[start : start + 80], before[-1:])
    if hint:
        return _at(text, start, f"not JSON: {hint}")
    reason = error.msg[:1].lower() + error.msg[1:]
    if start >= len(text):
        reason = "it ends too early; a bracket or a quotation mark is not closed, or a part is missing"
    return _place(error.lineno, error.colno, f"not JSON: {reason}")


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


def _at(text: str, position: int, problem: str) -> SyntaxProblem:
    """Return a syntax error at a position of the text."""
    return _place(text.count("\n", 0, position) + 1, position - text.rfind("\n", 0, position), problem)


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

    def construct_object_of_json(self, node: yaml.MappingNode) -> Object:
        """Return an L{Object} for a mapping, with merge keys resolved."""
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
    text = loader.construct_scalar(node).replace("_", "")
    digits = text.lstrip("+-")
    if re.fullmatch(r"0[0-7]+", digits):
        text = text.replace("0", "0o", 1)
    return int(text, 0)


def _construct_float(loader: Any, node: yaml.ScalarNode) -> float:
    return float(loader.construct_scalar(node))


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
        raise _place(mark.line + 1, mark.column + 1, f"not YAML: {problem}") from None
    except yaml.YAMLError as error:
        raise SyntaxProblem(f"not YAML: {error}") from None
    except (KeyError, ValueError) as error:
        # such as !!bool or !!int before something else, or an integer with too many digits
        raise SyntaxProblem(f"not YAML: a value is not what its tag says: {error}") from None
    except RecursionError:
        raise SyntaxProblem(_DEPTH) from None
