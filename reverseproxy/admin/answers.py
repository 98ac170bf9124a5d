"""How answers of C{/api/tunnel/v1} look, and what their requests have in common."""

from __future__ import annotations

__all__ = ["MOST", "USUAL", "listed", "listed_in_steps", "only", "page_of", "problems_of"]

from collections.abc import Callable, Iterable
from typing import Any, Final

from reverseproxy.admin.messages import ApiProblem, Call, Reply, compact
from reverseproxy.admin.slices import Steps, at_once
from reverseproxy.admin.sources import Answer

MOST: Final = 500
"""Items of a page."""

WRITTEN: Final = 4
"""How many items are written in one step; see L{reverseproxy.admin.slices}."""

USUAL: Final = 100
"""Items of a page that does not say."""


def only(call: Call, *methods: str) -> None:
    """
    Let a path have certain methods only.

    @raise ApiProblem: if the request has another one.
    """
    allowed = (*methods, "HEAD") if "GET" in methods else methods
    if call.method not in allowed:
        raise ApiProblem(405, f"use {' or '.join(methods)}", Allow=", ".join(allowed))


def page_of(call: Call, usual: int = USUAL) -> tuple[str, int]:
    """
    Return which page is wanted: after which key it begins, and how many items it may have.

    @param usual: how many items, if the request does not say.
    @raise ApiProblem: if the limit is no number from 1 to L{MOST}.
    """
    text = call.query.get("limit", str(usual))
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:6]) <= MOST and len(text) < 6):
        raise ApiProblem(400, f"limit must be a number from 1 to {MOST}")
    return call.query.get("after", ""), int(text)


def problems_of(answers: Iterable[Answer]) -> list[dict[str, Any]]:
    """Say which workers have not answered, and why."""
    return [{"worker": each.worker, "problem": each.problem} for each in answers if each.problem]


def listed(items: Iterable[Any]) -> Reply:
    """Answer with a list that is short enough to be one page."""
    return at_once(listed_in_steps(items, None, ()))


def listed_in_steps(
    items: Iterable[Any],
    after: str | None,
    answers: Iterable[Answer],
    show: Callable[[Any], Any] = lambda item: item,
) -> Steps[Reply]:
    """
    Answer with a page of a list, in steps: to write down some hundred items takes milliseconds.

    @param items: those of the page.
    @param after: what the next page begins after; L{None} if there is none.
    @param show: makes of an item what is written.
    """
    parts = []
    for index, item in enumerate(items):
        if index % WRITTEN == 0:
            yield
        parts.append(compact(show(item)))
    yield
    rest = compact({"next": after, "problems": problems_of(answers)})
    return Reply(200, b'{"items":[%b],%b\n' % (b",".join(parts), rest[1:]))
