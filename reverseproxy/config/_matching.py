"""
Match a document with the models.

This finds everything that can be found before a model is made: keys that are unknown,
repeated, missing or not acted on, and values that are replaced by others.
"""

from __future__ import annotations

__all__ = ["Matcher", "ReadDirectory", "refuse_unsupported"]

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, Final, Literal, get_origin

from reverseproxy.config._base import (
    IGNORE_UNSUPPORTED,
    KeyInfo,
    Model,
    Spelling,
    keys_of,
    names_of,
    shape_of,
    spellings_of,
)
from reverseproxy.config._clusters import HostConfig
from reverseproxy.config._document import Object
from reverseproxy.config._free_values import REPEATED, FreeValues
from reverseproxy.config._nodes import Items, Node, info_of, purpose
from reverseproxy.config._proxies import (
    BoltOptions,
    Http1Options,
    Http2Options,
    ProtocolOptions,
    ProxyConfig,
    RpcOptions,
)
from reverseproxy.config._route_actions import ClusterWeightConfig, RouteActionConfig
from reverseproxy.config._spellings import same_value
from reverseproxy.config._tls import TlsContextConfig
from reverseproxy.config._values import describe, quote
from reverseproxy.config.diagnostics import Diagnostics
from reverseproxy.problems import Place

_LABELS: Final[dict[type[Model], str]] = {
    HostConfig: "metadata",
    RouteActionConfig: "metadata_match",
    ClusterWeightConfig: "metadata_match",
}

_UNKEYED: Final[dict[str, tuple[str, type[Model]]]] = {
    "Http1": ("http1", Http1Options),
    "Http2": ("http2", Http2Options),
    "bolt": ("bolt", BoltOptions),
    "boltv2": ("bolt", BoltOptions),
    "dubbo": ("dubbo", RpcOptions),
}
"""Protocols whose options may stand in C{extend_config} without their name."""

_WRAPPING: Final = '{"filter_metadata": {"mosn.lb": {}}}'

_SCHEMA: Final = "$schema"
"""A key at the top, by which editors find the JSON Schema."""

_MAX_GUESSES: Final = 1000
"""How many unknown keys are compared with the known ones, which takes a millisecond each."""


_NOTHING: Final[tuple[Any, ...]] = (None, "", [], {}, False, 0)
"""The values that Go gives an absent key, which need no warning."""

ReadDirectory = Callable[[str], tuple[list[tuple[str, Object]], bool]]
"""
Reads all documents of a directory; returns their names and contents, and whether none
was left out because of an error.
"""


class _Guesses:
    """Guesses which keys unknown ones were meant to be."""

    def __init__(self) -> None:
        self._guesses: dict[tuple[type[Model], str], str | None] = {}

    def meant(self, model: type[Model], written: str) -> str | None:
        """Return the key that an unknown one was probably meant to be; L{None} if there is none."""
        if (model, written) not in self._guesses:
            if len(self._guesses) >= _MAX_GUESSES:
                return None
            names = {name.lower(): name for name in names_of(model)}
            near = get_close_matches(written.lower(), names, n=1, cutoff=0.75)
            self._guesses[model, written] = names[near[0]] if near else None
        return self._guesses[model, written]


def refuse_unsupported(findings: Diagnostics, place: Place, message: str, lenient: bool) -> None:
    """
    Refuse an unsupported key or value that restricts access.

    @param lenient: whether the object around it has C{ignore_unsupported}: then warn.
    """
    if lenient:
        findings.warn(place, f"{message}; ignored, as {IGNORE_UNSUPPORTED} is true")
    else:
        hint = f"write {quote(IGNORE_UNSUPPORTED)}: true beside it to run without"
        findings.error(place, f"{message}; {hint}")


class Matcher:
    """Matches a document's objects with their models."""

    def __init__(self, findings: Diagnostics, directory: ReadDirectory, substituted: bool = False) -> None:
        """
        @param directory: called to read each directory that the document names; raises L{OSError}.
        @param substituted: whether environment variables have been substituted.
        """
        self._findings = findings
        self._values = FreeValues(findings, substituted)
        self._directory = directory
        self._guesses = _Guesses()

    def match(self, model: type[Model], document: Any, place: Place, lenient: bool = False) -> Any:
        """
        Match an object with its model; any other value is returned for the model to refuse.

        @param lenient: whether the object around it has C{ignore_unsupported}.
        """
        if document is None:
            document = Object(())
        self._findings.seen(place)
        if not isinstance(document, Object):
            return document
        node = Node(place, model, self._leniency(document, place, lenient))
        self._keys(node, document)
        self._required(node)
        self._findings.done(place)
        return node

    def _leniency(self, document: Object, place: Place, around: bool) -> bool:
        """Read C{ignore_unsupported}, which every object may have."""
        for written, value in document.items():
            if written.lower() == IGNORE_UNSUPPORTED and value is not None:
                if isinstance(value, bool):
                    return value
                self._findings.seen(place / written)
                self._findings.error(place / written, f"expected true or false, got {describe(value)}")
        return around

    def _keys(self, node: Node, document: Object) -> None:
        """Match each key of an object with its field."""
        spellings = spellings_of(node.model)
        counting = self._counting(node, document)
        # The model of "config" depends on "type", so texts are matched first.
        for field, written in counting.items():
            if isinstance(document[written], str):
                node.put(field, written, document[written])
        for written, value in document.items():
            self._findings.seen(node.place / written)
            spelling = spellings.get(written.lower())
            if spelling is None and (
                written.lower() == IGNORE_UNSUPPORTED or (written == _SCHEMA and not node.place.keys)
            ):
                continue
            if spelling is None:
                self._unknown(node, written)
            elif counting[spelling.field] == written:
                self._spelt(node, spelling, written, value)
        model = self._config_model(node)
        if model is not None and "config" not in node:
            node["config"] = self.match(model, None, node.place_of("config"), node.lenient)
        for field, _, info in keys_of(node.model):
            if info.directory_of and isinstance(node.get(field), str):
                self._files(node, field, info.directory_of)

    def _counting(self, node: Node, document: Object) -> dict[str, str]:
        """
        Find which key of an object is used for each field.

        Of keys that differ in case only, that is the last one, as in Go.  Different names of
        one field must have the same value.
        """
        spellings = spellings_of(node.model)
        latest: dict[Spelling, str] = {}
        for written in document:
            spelling = spellings.get(written.lower())
            if spelling is None or (spelling in latest and document[written] is None):
                continue  # null does not override an earlier value
            if spelling in latest:
                self._repeated(node, latest[spelling])
            latest[spelling] = written
        for written in document.repeated:
            self._repeated(node, written)
        counting: dict[str, str] = {}
        chosen: dict[str, Spelling] = {}
        for spelling, written in latest.items():
            other = counting.get(spelling.field)
            if other is None or document[other] is None:
                counting[spelling.field], chosen[spelling.field] = written, spelling
                continue
            value = document[written]
            first = chosen[spelling.field]
            if value is not None and not same_value(document[other], first, value, spelling):
                place = node.place / written
                self._findings.seen(place)
                self._findings.error(
                    place,
                    f"is another name of {quote(first.name)}, which says something else at "
                    f"{(node.place / other).path}; "
                    "write one of them",
                )
        return counting

    def _spelt(self, node: Node, spelling: Spelling, written: str, value: Any) -> None:
        """Add the value of a key under one of its names."""
        if spelling.milliseconds and value is not None:
            if isinstance(value, bool) or not isinstance(value, int):
                problem = f"expected a whole number of milliseconds, got {describe(value)}"
                self._findings.error(node.place / written, problem)
                node.pop(spelling.field, None)
                node.lost.add(spelling.field)
                return
            value = f"{value}ms"
        elif spelling.milliseconds:
            return
        self._field(node, spelling.field, written, value)

    def _field(self, node: Node, field: str, written: str, value: Any) -> None:
        """Add the value of a key."""
        info = info_of(node.model, field)
        place = node.place / written
        if value is None and info.nullable:
            node.pop(field, None)
            return
        shape = shape_of(node.model.model_fields[field].annotation)
        model = self._config_model(node) if field == "config" and node.model.config_by_type else shape.model
        if not info.acted:
            value = self._values.read(value, place)
            if value not in _NOTHING and value not in info.harmless:
                self._not_acted_on(node, place, info)
        elif info.choices and get_origin(node.model.model_fields[field].annotation) is not Literal:
            value = self._choice(node, place, info, value)
        elif _LABELS.get(node.model) == field:
            value = self._metadata(node, value, place)
        elif node.model is ProxyConfig and field == "extend_config":
            value = self._protocol_options(node, value, place)
        elif isinstance(value, list) and shape.many and model is not None:
            value = Items(
                place,
                [self.match(model, item, place / index, node.lenient) for index, item in enumerate(value)],
            )
        elif isinstance(value, list):
            value = Items(place, self._values.read(value, place))
        elif model is not None and not shape.many:
            value = self.match(model, value, place, node.lenient)
        else:
            value = self._values.read(value, place)
        node.put(field, written, value)

    def _config_model(self, node: Node) -> type[Model] | None:
        """Return the model of a C{config} that depends on the C{type} beside it."""
        kind = node.get("type")
        return node.model.config_by_type.get(kind) if isinstance(kind, str) else None

    def _not_acted_on(self, node: Node, place: Place, info: KeyInfo) -> None:
        """Report a key that is not acted on."""
        if info.protects and node.model is TlsContextConfig:
            pass  # has no effect unless status is true, which is checked later
        elif info.protects:
            refuse_unsupported(self._findings, place, info.why, node.lenient)
        elif info.quiet:
            self._findings.note(place, info.why)
        else:
            self._findings.warn(place, info.why)

    def _unknown(self, node: Node, written: str) -> None:
        """Warn of an unknown key; refuse one that was probably meant to restrict access."""
        place = node.place / written
        names = names_of(node.model)
        meant = self._guesses.meant(node.model, written)
        node.unknown.append(written)
        hint = "" if meant is None else f"; did you mean {quote(meant)}?"
        if node.model.strict_keys:
            refuse_unsupported(self._findings, place, f"unknown key{hint}", node.lenient)
        elif meant is not None and info_of(node.model, names[meant]).protects:
            problem = f"unknown key; did you mean {quote(meant)}, which protects something?"
            refuse_unsupported(self._findings, place, problem, node.lenient)
        else:
            self._findings.warn(place, f"{node.model.unknown_key}{hint}")

    def _repeated(self, node: Node, written: str) -> None:
        self._findings.warn(node.place / written, REPEATED)

    def _required(self, node: Node) -> None:
        """Require the keys that must be there."""
        for field, _, info in keys_of(node.model):
            if info.required and node.get(field, "") == "":
                problem = "is empty" if field in node else "missing key"
                message = f"{problem}: {purpose(node.model, field)}"
                meant = [each for each in node.unknown if self._guesses.meant(node.model, each) == info.name]
                if meant and field not in node:
                    message += (
                        f"; there is an unknown key {quote(meant[0])}, which was probably meant to be it"
                    )
                self._findings.error(node.place_of(field), message)

    def _choice(self, node: Node, place: Place, info: KeyInfo, value: Any) -> Any:
        """Replace a value that is not acted on."""
        if not isinstance(value, str) or value in info.choices:
            return value
        if info.any_case and value.upper() in info.choices:
            return value.upper()
        if not value:
            return info.fallback
        if value in info.skipped:
            self._findings.warn(place, f"{quote(value)} is skipped: {info.skipped[value]}")
            return value
        choices = ", ".join(info.choices)
        if info.strict:
            problem = f"{quote(value)} is not supported, and may protect something (choices: {choices})"
            refuse_unsupported(self._findings, place, problem, node.lenient)
            return value
        known = f"is not acted on: {info.later[value]}" if value in info.later else "is not known"
        instead = f"{info.fallback} is used instead" if info.fallback else "it is skipped"
        self._findings.warn(place, f"{quote(value)} {known}; {instead} (choices: {choices})")
        return info.fallback or value

    def _files(self, node: Node, field: str, target: str) -> None:
        """Replace the list by the documents of a directory."""
        directory, place = node[field], node.place_of(field)
        if not directory:
            return
        if node.get(target):
            self._findings.error(place, f"can't be used together with {target}; write one of them")
            return
        model = shape_of(node.model.model_fields[target].annotation).model
        assert model is not None
        try:
            documents, complete = self._directory(directory)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            self._findings.error(place, f"{quote(directory)} can't be read: {reason}")
            node.lost.add(target)
            return
        items = Items(
            place,
            [self.match(model, document, Place(file), node.lenient) for file, document in documents],
        )
        items.lost = not complete
        node.put(target, field, items)

    def _protocol_options(self, node: Node, value: Any, place: Place) -> Any:
        """Accept both forms of C{extend_config}: by protocol, and of the only protocol."""
        if isinstance(value, Object):
            protocol, bare, keyed = str(node.get("downstream_protocol")), Object(()), Object(())
            known = {name.lower() for name in names_of(ProtocolOptions)}
            for name, option in value.items():
                part = keyed if name.lower() in known else bare
                part[name] = option
                part.repeated += [name] * (name in value.repeated)
                if protocol == "X" and name.lower() == "sub_protocol":
                    protocol = str(option)
            if bare and protocol in _UNKEYED and all(name.lower() == "sub_protocol" for name in keyed):
                options = self.match(ProtocolOptions, keyed, place, node.lenient)
                field, model = _UNKEYED[protocol]
                options.put(field, protocol, self.match(model, bare, place, node.lenient))
                return options
        return self.match(ProtocolOptions, value, place, node.lenient)

    def _metadata(self, node: Node, value: Any, place: Place) -> Any:
        """Unwrap labels in C{{"filter_metadata": {"mosn.lb": {...}}}}, as MOSN has them."""
        for wanted in ("filter_metadata", "mosn.lb"):
            if not isinstance(value, Object):
                return value
            found = None
            for name in value:
                if name.lower() == wanted:
                    found = name
                else:
                    self._findings.seen(place / name)
                    self._findings.warn(place / name, f"unknown key, ignored; labels are in {_WRAPPING}")
            value = Object(()) if found is None or value[found] is None else value[found]
            place = place / (found or wanted)
        if not isinstance(value, Object):
            return value
        labels = Node(place, Model)
        for name, label in value.items():
            self._findings.seen(place / name)
            labels.put(name, name, self._values.read(label, place / name))
        self._findings.done(place)
        return labels
