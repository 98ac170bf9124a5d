"""
A document, matched with the models: keys in their models' spelling, and for
every value the place where the document has it.

Everything that can be said without a model in hand is said here: keys that are
unknown, repeated, missing or not acted on, and values that stand in for others.
"""

from __future__ import annotations

__all__ = ["Items", "Location", "Node", "Tree", "purpose", "unsupported"]

import re
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, Final

from reverseproxy.config._base import (
    IGNORE_UNSUPPORTED,
    KeyInfo,
    Model,
    Spelling,
    key_info,
    keys_of,
    names_of,
    shape_of,
    spellings_of,
)
from reverseproxy.config._clusters import HostConfig
from reverseproxy.config._document import NO_VARIABLES, Object
from reverseproxy.config._environment import TEMPLATES
from reverseproxy.config._proxies import (
    BoltOptions,
    Http1Options,
    Http2Options,
    ProtocolOptions,
    ProxyConfig,
    RpcOptions,
)
from reverseproxy.config._routers import ClusterWeightConfig, RouteActionConfig
from reverseproxy.config._spellings import same_value
from reverseproxy.config._tls import TlsContextConfig
from reverseproxy.config._values import describe, quote
from reverseproxy.diagnostics import Diagnostics
from reverseproxy.problems import Place

Location = tuple[str | int, ...]
"""Where a value is, by the models' field names: C{("servers", 0, "listeners", 1)}."""

_REPEATED: Final = "this key occurs more than once; the last one counts"
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
"""A key at the top, by which editors find out what a document should look like."""

_MAX_GUESSES: Final = 1000
"""How many unknown keys are compared with the known ones, at a millisecond each."""

_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)[^}]*\}")

_NOTHING: Final[tuple[Any, ...]] = (None, "", [], {}, False, 0)
"""What Go takes an absent key for: values that ask for nothing."""


class Node(dict[str, Any]):
    """
    An object of the document, with the field names of its model as keys.

    @ivar place: where it is.
    @ivar model: the model that it is for.
    @ivar lenient: whether what protects, but is not supported, is no error here.
    @ivar lost: fields whose values had to be left out because they are wrong.
    @ivar unknown: keys that are in the document, and in no model.
    """

    def __init__(self, place: Place, model: type[Model], lenient: bool = False) -> None:
        super().__init__()
        self.place = place
        self.model = model
        self.lenient = lenient
        self.lost: set[str] = set()
        self.unknown: list[str] = []
        self._spelling: dict[str, str] = {}

    def put(self, field: str, written: str, value: Any) -> None:
        """Set a field, and remember how the document writes its key."""
        self[field] = value
        self._spelling[field] = written

    def place_of(self, field: str) -> Place:
        """The place of a field, whether it is there or not."""
        if field in self._spelling:
            return self.place / self._spelling[field]
        names = {name: written for written, name in names_of(self.model).items()}
        return self.place / names.get(field, field)


class Items(list[Any]):
    """
    A list of the document.

    @ivar place: where it is.
    @ivar numbers: the index of each item in the document.
    @ivar lost: whether items had to be left out because they are wrong.
    """

    def __init__(self, place: Place, values: list[Any]) -> None:
        super().__init__(values)
        self.place = place
        self.numbers = list(range(len(values)))
        self.lost = False

    def place_of(self, index: int) -> Place:
        """The place of an item."""
        return self.place / self.numbers[index]


ReadDirectory = Callable[[str], tuple[list[tuple[str, Object]], bool]]
"""
Reads all documents of a directory: their names and contents, and whether these
are all.
"""


class _FreeValues:
    """Reads values that no model describes."""

    def __init__(self, findings: Diagnostics) -> None:
        self._findings = findings

    def read(self, value: Any, place: Place) -> Any:
        """Take a value that no model describes, with its repeated keys noted."""
        self._findings.seen(place)
        if isinstance(value, str):
            self._verbatim(value, place)
        if isinstance(value, Object):
            for name in value.repeated:
                self._findings.warn(place / name, _REPEATED)
            return {name: self.read(item, place / name) for name, item in value.items()}
        if isinstance(value, list):
            return [self.read(item, place / index) for index, item in enumerate(value)]
        return value

    def _verbatim(self, text: str, place: Place) -> None:
        """Warn of what looks like a variable that somebody puts a value in place of."""
        if "${" in text and (found := _VARIABLE.search(text)) and place.name not in TEMPLATES:
            self._findings.warn(place, f"${{{found[1]}}} is taken as it is written: {NO_VARIABLES}")


class _Guesses:
    """Which keys unknown ones were meant to be."""

    def __init__(self) -> None:
        self._guesses: dict[tuple[type[Model], str], str | None] = {}

    def meant(self, model: type[Model], written: str) -> str | None:
        """Guess which key an unknown one was meant to be."""
        if (model, written) not in self._guesses:
            if len(self._guesses) >= _MAX_GUESSES:
                return None
            names = {name.lower(): name for name in names_of(model)}
            near = get_close_matches(written.lower(), names, n=1, cutoff=0.75)
            self._guesses[model, written] = names[near[0]] if near else None
        return self._guesses[model, written]


class Tree:
    """
    Reads a document for its models.

    @ivar root: the whole of it, a L{Node}.
    """

    def __init__(
        self, model: type[Model], document: Object, file: str, findings: Diagnostics, directory: ReadDirectory
    ) -> None:
        """
        @param directory: called for each directory that the document names, to
            read it; raises L{OSError}.
        """
        self._findings = findings
        self._values = _FreeValues(findings)
        self._directory = directory
        self._guesses = _Guesses()
        self.root = self._object(model, document, Place(file))

    # places

    def locate(self, location: Location) -> Place:
        """
        Translate a location to the place as the document has it.

        What is not in the document is placed as far down as it can be.
        """
        here: Any = self.root
        place: Place = self.root.place
        for part in location:
            if isinstance(here, Node):
                place = here.place_of(str(part))
            elif isinstance(here, Items) and isinstance(part, int) and part < len(here):
                place = here.place_of(part)
            elif here is None or isinstance(here, dict | list):
                place = place / part
            else:
                break
            here = _step(here, part)
            if isinstance(here, Node):
                place = here.place
        return place

    def get(self, location: Location) -> Any:
        """What the document has there; L{None} if nothing."""
        here: Any = self.root
        for part in location:
            here = _step(here, part)
        return here

    def is_secret(self, location: Location) -> bool:
        """Whether a value must not be shown."""
        here: Any = self.root
        for part in location:
            if isinstance(here, Node) and _info(here.model, str(part)).secret:
                return True
            here = _step(here, part)
        return False

    def cut(self, location: Location) -> bool:
        """
        Take a wrong value out, so that its absence can be lived with.

        @return: whether there was something to take out.
        """
        for end in range(len(location), 0, -1):
            parent, last = self.get(location[: end - 1]), location[end - 1]
            if isinstance(parent, Node) and last in parent:
                del parent[str(last)]
                parent.lost.add(str(last))
                return True
            if isinstance(parent, Items) and isinstance(last, int) and last < len(parent):
                del parent[last], parent.numbers[last]
                parent.lost = True
                return True
            if isinstance(parent, dict) and last in parent:
                del parent[last]
                return True
        return False

    def complete(self, location: Location, name: str, *fields: str, named: bool = True) -> bool:
        """
        Whether every item of a list of objects is there with its name.

        Where not, what refers to a name that is not found may be right.

        @param location: where the list is.
        @param name: the field that holds the name.
        @param fields: others that may be its name instead.
        @param named: whether each must have a name.
        """
        here: Any = self.root
        for part in location:
            if isinstance(here, Node) and part in here.lost:
                return False
            here = _step(here, part)
        if not isinstance(here, Items):
            return True
        return not here.lost and not any(
            isinstance(item, Node)
            and (not item.lost.isdisjoint((name, *fields)) or (named and not item.get(name)))
            for item in here
        )

    def unsupported(self, location: Location, message: str) -> None:
        """
        Refuse what protects, but is not supported, unless the file says that this may be ignored.

        @param location: where it is; what counts is the object around it.
        """
        here: Any = self.root
        lenient = self.root.lenient
        for part in location:
            here = _step(here, part)
            if isinstance(here, Node):
                lenient = here.lenient
        self._unsupported(self.locate(location), message, lenient)

    def _unsupported(self, place: Place, message: str, lenient: bool) -> None:
        if lenient:
            self._findings.warn(place, f"{message}; ignored, as {IGNORE_UNSUPPORTED} is true")
        else:
            hint = f"write {quote(IGNORE_UNSUPPORTED)}: true beside it to run without"
            self._findings.error(place, f"{message}; {hint}")

    # reading

    def _object(self, model: type[Model], document: Any, place: Place, lenient: bool = False) -> Any:
        """
        Match an object with its model; anything else is for the model to refuse.

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
        """Put each key of an object under the field that it is for."""
        spellings = spellings_of(node.model)
        counting = self._counting(node, document)
        # Which model a field has may depend on the others, so texts go ahead.
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
            node["config"] = self._object(model, None, node.place_of("config"), node.lenient)
        for field, _, info in keys_of(node.model):
            if info.directory_of and isinstance(node.get(field), str):
                self._files(node, field, info.directory_of)

    def _counting(self, node: Node, document: Object) -> dict[str, str]:
        """
        Find which key of an object counts for each field.

        Of keys that differ in nothing but case, that is the last one, as in Go.
        Different names of one field must say the same.
        """
        spellings = spellings_of(node.model)
        latest: dict[Spelling, str] = {}
        for written in document:
            spelling = spellings.get(written.lower())
            if spelling is None or (spelling in latest and document[written] is None):
                continue  # null leaves what was there before
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
        """Take in one key's value, whichever of its names the key has."""
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
        """Take in one key's value."""
        info = _info(node.model, field)
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
        elif info.choices:
            value = self._choice(node, place, info, value)
        elif _LABELS.get(node.model) == field:
            value = self._metadata(node, value, place)
        elif node.model is ProxyConfig and field == "extend_config":
            value = self._protocol_options(node, value, place)
        elif isinstance(value, list) and shape.many and model is not None:
            value = Items(
                place,
                [self._object(model, item, place / index, node.lenient) for index, item in enumerate(value)],
            )
        elif isinstance(value, list):
            value = Items(place, self._values.read(value, place))
        elif model is not None and not shape.many:
            value = self._object(model, value, place, node.lenient)
        else:
            value = self._values.read(value, place)
        node.put(field, written, value)

    def _config_model(self, node: Node) -> type[Model] | None:
        """The model of a C{config} that depends on the C{type} beside it."""
        kind = node.get("type")
        return node.model.config_by_type.get(kind) if isinstance(kind, str) else None

    def _not_acted_on(self, node: Node, place: Place, info: KeyInfo) -> None:
        """Say of a key that nothing is done with it."""
        if info.protects and node.model is TlsContextConfig:
            pass  # nothing in it counts unless it is on, which is looked at later
        elif info.protects:
            self._unsupported(place, info.why, node.lenient)
        elif info.quiet:
            self._findings.note(place, info.why)
        else:
            self._findings.warn(place, info.why)

    def _unknown(self, node: Node, written: str) -> None:
        """Warn of a key that no field is for; refuse one that was probably meant to protect something."""
        place = node.place / written
        names = names_of(node.model)
        meant = self._guesses.meant(node.model, written)
        node.unknown.append(written)
        hint = "" if meant is None else f"; did you mean {quote(meant)}?"
        if node.model.strict_keys:
            self._unsupported(place, f"unknown key{hint}", node.lenient)
        elif meant is not None and _info(node.model, names[meant]).protects:
            problem = f"unknown key; did you mean {quote(meant)}, which protects something?"
            self._unsupported(place, problem, node.lenient)
        else:
            self._findings.warn(place, f"{node.model.unknown_key}{hint}")

    def _repeated(self, node: Node, written: str) -> None:
        self._findings.warn(node.place / written, _REPEATED)

    def _required(self, node: Node) -> None:
        """Demand the keys that must be there."""
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
        """Put something in place of a value that is not acted on."""
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
            self._unsupported(place, problem, node.lenient)
            return value
        known = f"is not acted on: {info.later[value]}" if value in info.later else "is not known"
        instead = f"{info.fallback} is used instead" if info.fallback else "it is skipped"
        self._findings.warn(place, f"{quote(value)} {known}; {instead} (choices: {choices})")
        return info.fallback or value

    def _files(self, node: Node, field: str, target: str) -> None:
        """Make a list of all files of a directory."""
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
            [self._object(model, document, Place(file), node.lenient) for file, document in documents],
        )
        items.lost = not complete
        node.put(target, field, items)

    def _protocol_options(self, node: Node, value: Any, place: Place) -> Any:
        """Take both forms of C{extend_config}: by protocol, and for the only protocol."""
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
                options = self._object(ProtocolOptions, keyed, place, node.lenient)
                field, model = _UNKEYED[protocol]
                options.put(field, protocol, self._object(model, bare, place, node.lenient))
                return options
        return self._object(ProtocolOptions, value, place, node.lenient)

    def _metadata(self, node: Node, value: Any, place: Place) -> Any:
        """Reach into C{{"filter_metadata": {"mosn.lb": {...}}}}, MOSN's wrapping of labels."""
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


def _step(here: Any, part: str | int) -> Any:
    """Go one step down a document; L{None} where there is nothing."""
    if isinstance(here, dict):
        return here.get(part)
    if isinstance(here, list) and isinstance(part, int) and part < len(here):
        return here[part]
    return None


def purpose(model: type[Model], field: str) -> str:
    """What a key is for: the first sentence of its description."""
    sentence = (model.model_fields[field].description or "").partition(". ")[0].removesuffix(".")
    return sentence[:1].lower() + sentence[1:]


def unsupported(model: type[Model], field: str) -> str:
    """Why a key is not acted on."""
    return _info(model, field).why


def _info(model: type[Model], field: str) -> KeyInfo:
    """What is known of a model's key."""
    field_info = model.model_fields.get(field)
    return KeyInfo() if field_info is None else key_info(field, field_info)
