"""Tests for L{reverseproxy.problems} and L{reverseproxy.config.diagnostics}."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

import reverseproxy
from reverseproxy.config.diagnostics import Diagnostics
from reverseproxy.config.loader import loads
from reverseproxy.errors import ConfigError, PluginUnknown
from reverseproxy.problems import DOCUMENT, PART, Place, Problem

ADMIN = Place("", ("admin",))
HOSTS = Place("", ("cluster_manager", "clusters", 1, "hosts"))

# shorter than what messages shorten
KEYS = st.lists(st.one_of(st.integers(0, 99), st.text(min_size=1, max_size=20)), max_size=5).map(tuple)

_ANSWERS = re.compile(r"Problem\(\d{3}, ")
"""What the admin API answers, which has a class of this name too."""


class PlaceTests(SynchronousTestCase):
    """L{Place}."""

    def test_path(self) -> None:
        """A path is written as in JavaScript."""
        place = Place("a.json") / "servers" / 0 / "listeners" / 12 / "address"
        self.assertEqual(place.path, "servers[0].listeners[12].address")
        self.assertEqual((place / "x.y" / "z").path, 'servers[0].listeners[12].address["x.y"].z')
        self.assertEqual(Place("a.json").path, "")

    @given(KEYS)
    def test_read_again(self, keys: tuple[str | int, ...]) -> None:
        """What is written is read as what it was."""
        place = Place("a.json", keys)
        self.assertEqual(Place.of(place.path, "a.json"), place)

    def test_no_path(self) -> None:
        for wrong in (".a", "a.", "a..b", "a[", "a[x]", 'a["x]', "a b", "[0]b"):
            self.assertRaises(ValueError, Place.of, wrong)

    @given(KEYS, KEYS)
    def test_paths_tell_places_apart(self, one: tuple[str | int, ...], other: tuple[str | int, ...]) -> None:
        """No two places of a document are written in the same way."""
        same = Place("a.json", one).path == Place("a.json", other).path
        self.assertEqual(same, one == other)

    @given(KEYS)
    def test_keys_for_another_process(self, keys: tuple[str | int, ...]) -> None:
        """What is sent as JSON is read as what it was."""
        problem = Problem.at(Place("a.json", keys), "is wrong")
        self.assertEqual(Problem.from_message(json.loads(json.dumps(problem.to_message()))), problem)

    def test_keys_with_dots_are_one_key(self) -> None:
        """What is around a place is not found by looking for dots in a text."""
        place = Place("a", ("labels", "app.kubernetes.io/name", "x"))
        self.assertEqual(
            [each.keys for each in place.around], [("labels",), ("labels", "app.kubernetes.io/name")]
        )

    def test_within(self) -> None:
        """A place in a part goes where the part stands; one in the document stays."""
        part = Place("a.json", ("admin",))
        self.assertEqual(Place(None, ("address",)).within(part), part / "address")
        self.assertEqual(Place("", ("admin", "address")).within(part), part / "address")
        self.assertEqual(Place("b.json", ("x",)).within(part), Place("b.json", ("x",)))

    def test_name(self) -> None:
        self.assertEqual((ADMIN / "address").name, "address")
        self.assertEqual((HOSTS / 0).name, "")
        self.assertEqual(Place().name, "")


class ProblemTests(SynchronousTestCase):
    """L{Problem}."""

    def test_text(self) -> None:
        place = Place("a.json") / "admin" / "address"
        self.assertEqual(str(Problem.at(place, "is taken")), "a.json: admin.address: is taken")
        self.assertEqual(str(Problem.at(DOCUMENT, "is wrong")), "is wrong")
        self.assertEqual(str(Problem.at(PART, "is wrong")), "is wrong")

    def test_parts(self) -> None:
        problem = Problem.at(Place("a.json", ("servers", 0, "x")), "is wrong")
        self.assertEqual(
            (problem.file, problem.path, problem.message), ("a.json", "servers[0].x", "is wrong")
        )
        self.assertEqual(problem, Problem("a.json", "servers[0].x", "is wrong"))
        self.assertNotEqual(problem, Problem.at(Place("b.json") / "servers" / 0 / "x", "is wrong"))

    def test_for_another_process(self) -> None:
        """What a worker finds keeps its place, also in a file of its own, and in none."""
        for place in (
            PART / "a",
            DOCUMENT / "servers" / 0 / "x.y",
            Place("routers/b.json", ("routers", 3, "match")),
            Place("a.json", line=3, column=7),
        ):
            problem = Problem.at(place, "is wrong")
            self.assertEqual(Problem.from_message(json.loads(json.dumps(problem.to_message()))), problem)

    def test_ours_have_typed_places(self) -> None:
        """Nothing here makes a place of a text: that is for programs that have only texts."""
        root = Path(reverseproxy.__file__).parent
        made = re.compile(r"(?<![\w.])(?:Config)?Problem\(|\bPlace\.of\(")
        for file in root.rglob("*.py"):
            text = file.read_text("utf-8")
            if file.name != "problems.py" and re.search("from reverseproxy.(problems|errors) import", text):
                found = [line for line in text.splitlines() if made.search(line)]
                ours = [line for line in found if "class " not in line and not _ANSWERS.search(line)]
                self.assertEqual(ours, [], str(file.relative_to(root)))

    def test_text_that_can_not_be_read(self) -> None:
        """A syntax error has its line and column in its place, and the message names them."""
        with self.assertRaises(ConfigError) as raised:
            loads('{\n  "servers": [}', "a.json")
        (problem,) = raised.exception.problems
        self.assertEqual((problem.place.line, problem.place.column), (2, 15))
        self.assertTrue(str(problem).startswith("a.json: line 2, column 15: not JSON: "))


class DiagnosticsTests(SynchronousTestCase):
    """L{Diagnostics}."""

    def setUp(self) -> None:
        self.found = Diagnostics("a.json")

    def paths(self) -> list[str]:
        return [problem.path for problem in self.found.errors]

    def fail_with(self, *problems: Problem) -> None:
        raise ConfigError(*problems)

    def test_parts_of_any_room_are_placed(self) -> None:
        """Where a part is, and whether it tells of itself or of the document, is not guessed by a name."""
        for place in (ADMIN, HOSTS / 0, Place("", ("tracing", "driver"))):
            relative, absolute = (
                Problem.at(PART / "tls_context" / "x", "a"),
                Problem.at(place / "tls_context" / "x", "b"),
            )
            self.found.attempt(place, partial(self.fail_with, relative, absolute))
        self.assertEqual(
            [str(problem) for problem in self.found.errors],
            [
                f"a.json: {where}.tls_context.x: {reason}"
                for where in ("admin", "cluster_manager.clusters[1].hosts[0]", "tracing.driver")
                for reason in ("a", "b")
            ],
        )

    def test_plugins_that_are_not_there(self) -> None:
        """The name is wrong, not what the plug-in would have been built with."""

        def build() -> None:
            raise PluginUnknown("there is none")

        self.found.attempt(ADMIN / "options", build, ADMIN / "kind")
        self.found.attempt(ADMIN / "others", build)
        self.assertEqual(self.paths(), ["admin.kind", "admin.others"])

    def test_warnings_of_what_can_not_be_built(self) -> None:
        def build() -> None:
            raise ConfigError(
                Problem.at(PART / "x", "is wrong"), warnings=(Problem.at(PART / "y", "is odd"),)
            )

        self.found.attempt(ADMIN, build)
        self.assertEqual([str(each) for each in self.found.warnings], ["a.json: admin.y: is odd"])
        error = self.assertRaises(ConfigError, self.found.raise_errors, Problem.at(DOCUMENT, "is old"))
        self.assertEqual([each.reason for each in error.warnings], ["is old", "is odd"])
        Diagnostics().raise_errors()

    def test_values_that_will_not_do(self) -> None:
        self.found.attempt(ADMIN, lambda: int("x"))
        (problem,) = self.found.errors
        self.assertEqual((problem.file, problem.path), ("a.json", "admin"))
        self.assertEqual(self.found.attempt(ADMIN, lambda: 7), 7)

    def test_what_parts_share_is_wrong_once(self) -> None:
        shared = Problem.at(Place("", ("cluster_manager", "tls_context")), "is wrong")
        for number in range(3):
            self.found.attempt(HOSTS / number, lambda: self.fail_with(shared))
        self.assertEqual(self.paths(), ["cluster_manager.tls_context"])

    def test_nothing_is_said_of_what_is_in_something_wrong(self) -> None:
        self.found.error(HOSTS / 0, "is no object")
        self.found.error(HOSTS / 0 / "address", "missing key")
        self.found.error(HOSTS / 1 / "address", "missing key")
        self.assertEqual(self.paths(), [(HOSTS / 0).path, (HOSTS / 1 / "address").path])

    def test_order_of_the_document(self) -> None:
        """What is missing comes where the object ends that it is missing in."""
        self.found = Diagnostics()
        for key in ("a", "b.c", "d"):
            self.found.seen(ADMIN / key)
        self.found.done(ADMIN)
        self.found.seen(HOSTS)
        for place in (HOSTS, ADMIN / "missing", ADMIN / "d", ADMIN / "b.c"):
            self.found.warn(place, "x")
        self.assertEqual(
            [problem.place.keys[-1] for problem in self.found.warnings], ["b.c", "d", "missing", "hosts"]
        )

    def test_notes_of_one_kind_are_one(self) -> None:
        for number in range(3):
            self.found.note(HOSTS / number / "a.b", "makes no difference")
        self.found.note(HOSTS / 0 / "b", "makes no difference")
        self.assertEqual(
            [problem.message for problem in self.found.notes],
            ["makes no difference (and in 2 more places)", "makes no difference"],
        )
