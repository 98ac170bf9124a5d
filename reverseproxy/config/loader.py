"""
Load configuration files.

All errors are reported at once, in the order of the document, each with its place.
"""

from __future__ import annotations

__all__ = ["Loaded", "load", "loads"]

import gc
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from reverseproxy.config._checks import check
from reverseproxy.config._document import Object, SyntaxProblem, parse_json
from reverseproxy.config._environment import NO_VARIABLE, substitute
from reverseproxy.config._free_values import half_characters
from reverseproxy.config._messages import explain
from reverseproxy.config._nodes import Location
from reverseproxy.config._toml import parse_toml
from reverseproxy.config._tree import Tree
from reverseproxy.config._values import describe
from reverseproxy.config.diagnostics import Diagnostics
from reverseproxy.config.invalid import InvalidDocument
from reverseproxy.config.models import Config
from reverseproxy.errors import ConfigError
from reverseproxy.problems import Place, Problem

MAX_SIZE: Final = 64 * 1024 * 1024
"""The most bytes of a file."""

_Parser = Callable[[str], Any]


def _parse_yaml(text: str) -> Any:
    # PyYAML takes memory that configurations in JSON don't need.
    from reverseproxy.config._yaml import parse_yaml

    return parse_yaml(text)


_PARSERS: Final[Mapping[str, _Parser]] = {".yaml": _parse_yaml, ".yml": _parse_yaml, ".toml": parse_toml}
"""The parsers by the suffix of a file's name; any other is JSON."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """
    A valid configuration.

    @ivar config: the models.
    @ivar warnings: its warnings, in the order of the document.
    @ivar notes: hints about keys that make no difference.
    """

    config: Config
    warnings: tuple[Problem, ...] = ()
    notes: tuple[Problem, ...] = ()


def load(path: str) -> Loaded:
    """
    Load a configuration file: YAML or TOML by its suffix, otherwise JSON.

    @param path: relative to the working directory, as all paths within it are.
    @raise ConfigError: with all errors.
    """
    try:
        text = _read(path)
    except OSError as error:
        raise ConfigError(Problem.at(Place(path), f"can't be read: {error.strerror}")) from None
    except ValueError as error:
        raise ConfigError(Problem.at(Place(path), str(error))) from None
    parse = _PARSERS.get(Path(path).suffix.lower(), parse_json)
    return _loads(text, path, parse, os.environ)


def loads(text: str, file: str, yaml: bool = False, environ: Mapping[str, str] | None = None) -> Loaded:
    """
    Load a configuration from a text.

    @param text: the whole document.
    @param file: its name in messages.
    @param yaml: whether it is YAML rather than JSON.
    @param environ: the environment variables to substitute; L{None} for no substitution.
    @raise ConfigError: with all errors.
    """
    return _loads(text, file, _parse_yaml if yaml else parse_json, environ)


def _loads(text: str, file: str, parse: _Parser, environ: Mapping[str, str] | None) -> Loaded:
    try:
        with _without_collecting():
            document = _parse(text, parse)
            return _load(document, file, environ, _ESCAPED_HALF.search(text) is not None)
    except SyntaxProblem as problem:
        raise ConfigError(_syntax(file, problem)) from None
    except RecursionError:
        raise ConfigError(Problem.at(Place(file), "is nested too deeply")) from None


def _syntax(file: str, problem: SyntaxProblem) -> Problem:
    return Problem.at(Place(file, line=problem.line, column=problem.column), str(problem))


@contextmanager
def _without_collecting() -> Iterator[None]:
    """
    Disable the garbage collector for a while.

    Nothing that is made of a document becomes garbage before it is loaded, and collections
    would take as long as loading a large one.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


_ESCAPED_HALF: Final = re.compile(r"\\[uU](?:0000)?[dD][89a-fA-F]")
"""What may be half of a character, in JSON, YAML and TOML."""


def _load(document: Object, file: str, environ: Mapping[str, str] | None, halves: bool = False) -> Loaded:
    """
    Make the models of a document.

    @param halves: whether texts may have halves of characters.
    @raise InvalidDocument: with all errors.
    """
    findings = Diagnostics()
    for place in half_characters(document, Place(file)) if halves else ():
        findings.error(place, "has half of a character; write it as itself, or escape all of it")
    _substitute(document, file, environ, findings)
    tree = Tree(Config, document, file, findings, _Directory(findings, environ).read, environ is not None)
    config = _validate(tree, findings)
    check(config, tree, findings)
    if findings.errors:
        raise InvalidDocument(config, tree, findings)
    config.elsewhere.update(tree.elsewhere())
    return Loaded(config, findings.warnings, findings.notes)


def _substitute(
    document: Object, file: str, environ: Mapping[str, str] | None, findings: Diagnostics
) -> None:
    """Substitute environment variables."""
    if environ is not None:
        for keys, problem in substitute(document, environ)[1]:
            report = findings.warn if problem == NO_VARIABLE else findings.error
            report(Place(file, keys), problem)


def _parse(text: str, parse: _Parser = parse_json) -> Object:
    """
    Parse a document.

    @raise SyntaxProblem: if it can't be parsed.
    """
    document = parse(text)
    if not isinstance(document, Object):
        raise SyntaxProblem(f"expected an object, got {describe(document)}")
    return document


def _read(path: str) -> str:
    """
    Read a text file.

    @raise OSError: if it can't be read.
    @raise ValueError: if it is not UTF-8, or larger than L{MAX_SIZE}.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_SIZE + 1)
        if len(content) > MAX_SIZE:
            raise ValueError(f"is larger than {MAX_SIZE} bytes, which no configuration should be")
        # Line ends as in any text file, for the lines in messages.
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8: byte 0x{error.object[error.start]:02x} at {error.start}") from None


class _Directory:
    """Reads directories whose files are the items of a list."""

    def __init__(self, findings: Diagnostics, environ: Mapping[str, str] | None) -> None:
        self._findings = findings
        self._environ = environ

    def read(self, directory: str) -> tuple[list[tuple[str, Any]], bool]:
        """
        Read all JSON files of a directory.

        @return: their names and contents, in the order of the names; and whether none was left
            out because of an error.
        @raise OSError: if the directory can't be read.
        """
        documents, complete = [], True
        for path in sorted(Path(directory).iterdir()):
            file = str(path)
            if path.suffix != ".json":
                if path.is_file() and not path.name.startswith("."):
                    self._findings.warn(Place(file), "ignored, because its name does not end in .json")
                continue
            try:
                document = _parse(_read(file))
                _substitute(document, file, self._environ, self._findings)
                documents.append((file, document))
            except OSError as error:
                self._findings.error(Place(file), f"can't be read: {error.strerror}")
                complete = False
            except SyntaxProblem as problem:
                self._findings.add(_syntax(file, problem))
                complete = False
            except ValueError as error:
                self._findings.error(Place(file), str(error))
                complete = False
        return documents, complete


def _validate(tree: Tree, findings: Diagnostics) -> Config:
    """
    Make the models.

    Wrong values are removed from the document, and then it is validated again, so that the
    checks can look at the rest.
    """
    while True:
        try:
            return Config.model_validate(tree.root, context={"document": True})
        except ValidationError as error:
            wrong: set[Location] = set()
            for entry in error.errors(include_url=False):
                location: Location = entry["loc"]
                findings.error(tree.locate(location), explain(entry, tree.is_secret(location)))
                wrong.add(location)
            # From the end, so that indices before it stay true.
            for location in sorted(wrong, key=_backwards, reverse=True):
                if not tree.cut(location):
                    raise


def _backwards(location: Location) -> tuple[tuple[int, str], ...]:
    """Sort key for locations, by index where there is one."""
    return tuple((part, "") if isinstance(part, int) else (0, part) for part in location)
