"""
The choice of the rule.

Rules are compiled to functions when the table is built: a test, which is true for a
request that matches its rule, or a matcher, which returns the result.
"""

from __future__ import annotations

__all__ = [
    "DEAD_END",
    "Action",
    "Demand",
    "HeaderTest",
    "Matcher",
    "Rule",
    "Test",
    "first_of",
    "nothing",
    "path_test",
    "prefix_test",
    "regex_test",
    "rooted",
    "service_test",
    "variables_test",
    "with_headers",
]

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from reverseproxy.routing.facts import RouteInput
from reverseproxy.routing.patterns import Search
from reverseproxy.routing.results import DirectResponse, RouteResult
from reverseproxy.routing.variables import Getter

Matcher = Callable[[RouteInput], RouteResult | None]
"""Returns the result for a request."""

Action = Callable[[RouteInput], RouteResult | None]
"""Makes the result of a rule that has matched."""

Test = Callable[[RouteInput], bool]
"""Returns whether a request matches a rule."""

HeaderTest = Callable[[str], bool]
"""Returns whether a header's value matches."""

Rule = tuple[Test, RouteResult | Action]
"""A test, and the result or what makes it."""

DEAD_END: Final = DirectResponse(404)
"""The result of a rule that matches but names no cluster: the search ends there, without a result."""


def _fold(text: str) -> str:
    """Fold case one character at a time, as Go's C{strings.EqualFold} does."""
    if text.isascii():
        return text.lower()
    folded = []
    for character in text:
        candidates = (character.casefold(), character.lower(), character)
        folded.append(next(candidate for candidate in candidates if len(candidate) == 1))
    return "".join(folded)


# Tests: each is true for a request that its rule matches.


def rooted(facts: RouteInput) -> bool:
    """Match paths that begin with a slash: all but those of RPC and of C{OPTIONS *}."""
    return facts.path[:1] == "/"


def prefix_test(prefix: str) -> Test:
    """Match paths with a prefix."""
    if prefix == "/":
        return rooted

    def test(facts: RouteInput) -> bool:
        return facts.path.startswith(prefix)

    return test


def path_test(path: str) -> Test:
    """Match one path, in any case."""
    folded = _fold(path)

    def test(facts: RouteInput) -> bool:
        return facts.path == path or _fold(facts.path) == folded

    return test


def regex_test(search: Search) -> Test:
    """Match paths in which a pattern is found; an empty path never matches."""

    def test(facts: RouteInput) -> bool:
        return facts.path != "" and search(facts.path)

    return test


def service_test(value: str) -> Test:
    """Match the header C{service}, as MOSN's fast match: the only pattern is C{.*}, in spite of C{regex}."""

    def test(facts: RouteInput) -> bool:
        service = facts.headers("service")
        return bool(service) and (value == ".*" or service == value)

    return test


class Demand(NamedTuple):
    """
    A condition on a variable.

    @ivar getter: returns its value.
    @ivar matches: returns whether that matches.
    """

    getter: Getter
    matches: HeaderTest


def variables_test(alternatives: Sequence[Sequence[Demand]]) -> Test:
    """
    Match requests for which all conditions of one alternative hold.

    A variable without a value counts as empty, as in MOSN.
    """

    def test(facts: RouteInput) -> bool:
        for demands in alternatives:
            for getter, matches in demands:
                if not matches(getter(facts) or ""):
                    break
            else:
                return True
        return False

    return test


def _always(facts: RouteInput) -> bool:
    return True


def with_headers(test: Test | None, method: str | None, headers: list[tuple[str, HeaderTest]]) -> Test:
    """Add conditions on method and headers to a test; all must hold."""
    if method is None and not headers:
        return test or _always

    def every(facts: RouteInput) -> bool:
        if method is not None and facts.method != method:
            return False
        if test is not None and not test(facts):
            return False
        for name, matches in headers:
            value = facts.headers(name)
            if value is None or not matches(value):
                return False
        return True

    return every


# Matchers: each returns the result for a request, or None.


def nothing(facts: RouteInput) -> RouteResult | None:
    """Match no request, as there is no rule."""
    return None


def first_of(rules: Sequence[Rule]) -> Matcher:
    """Return the result of the first rule that matches."""
    if not rules:
        return nothing
    if len(rules) == 1:
        return _only(*rules[0])

    def first(facts: RouteInput) -> RouteResult | None:
        for test, outcome in rules:
            if test(facts):
                if callable(outcome):
                    return outcome(facts)
                return None if outcome is DEAD_END else outcome
        return None

    return first


def _only(test: Test, outcome: RouteResult | Action) -> Matcher:
    """Return the matcher for a single rule, the common case."""
    if outcome is DEAD_END:
        return nothing
    if callable(outcome):
        action = outcome
        return lambda facts: action(facts) if test(facts) else None
    result = outcome
    return lambda facts: result if test(facts) else None
