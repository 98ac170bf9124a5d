"""Lists as answers of C{/api/tunnel/v1}, and the checks that its requests have in common."""

from __future__ import annotations

__all__ = [
    "MOST",
    "TIME",
    "USUAL",
    "after_of",
    "latest_page_of",
    "listed",
    "listed_in_steps",
    "only",
    "page_of",
    "problems_of",
]

import re
from collections.abc import Callable, Iterable
from typing import Any, Final

from reverseproxy.admin.messages import ApiProblem, Call, Reply, compact
from reverseproxy.admin.paging import Before
from reverseproxy.admin.slices import Steps, at_once, consume
from reverseproxy.admin.sources import Answer

MOST: Final = 500
"""The maximum number of items of a page."""

WRITTEN: Final = 2
"""How many items are encoded in one step; see L{reverseproxy.admin.slices}."""

TIME: Final = r"[0-9]{1,12}(\.[0-9]{1,12})?-[0-9]{1,6}"
"""The form of C{after} in lists that begin with the latest entry; see L{Before}."""

USUAL: Final = 100
"""The default number of items of a page."""


def only(call: Call, *methods: str) -> None:
    """
    Check the method of a request.

    @param methods: the methods that the path supports; C{GET} includes C{HEAD}.
    @raise ApiProblem: if the request has another one.
    """
    allowed = (*methods, "HEAD") if "GET" in methods else methods
    if call.method not in allowed:
        raise ApiProblem(405, f"use {' or '.join(methods)}", Allow=", ".join(allowed))


def page_of(call: Call, usual: int = USUAL) -> tuple[str, int]:
    """
    Parse the query parameters C{after} and C{limit}.

    @param usual: the default of the limit.
    @return: the key after which the page begins, and the maximum number of its items.
    @raise ApiProblem: if the limit is not a number from 1 to L{MOST}.
    """
    text = call.query.get("limit", str(usual))
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:6]) <= MOST and len(text) < 6):
        raise ApiProblem(400, f"limit must be a number from 1 to {MOST}")
    return call.query.get("after", ""), int(text)


def latest_page_of(call: Call) -> tuple[Before | None, int]:
    """
    Parse the query parameters of a list that begins with the latest entry, as L{page_of} does.

    @return: where the page begins, L{None} for the first page; and the limit.
    @raise ApiProblem: if a parameter is invalid.
    """
    after, limit = page_of(call)
    if not after:
        return None, limit
    if re.fullmatch(TIME, after) is None:
        raise ApiProblem(400, "after must be the next of the page before")
    time, _, listed = after.partition("-")
    return (float(time), int(listed)), limit


def after_of(before: Before | None) -> str | None:
    """Return the parameter C{after} of the page that begins somewhere; L{None} if there is none."""
    return None if before is None else f"{before[0]!r}-{before[1]}"


def problems_of(answers: Iterable[Answer]) -> list[dict[str, Any]]:
    """Return the workers that have not answered, with the reasons."""
    return [{"worker": each.worker, "problem": each.problem} for each in answers if each.problem]


def listed(items: Iterable[Any]) -> Reply:
    """Return an answer with a whole list, which is short."""
    return at_once(listed_in_steps(list(items), None, ()))


def listed_in_steps(
    items: list[Any],
    after: str | None,
    answers: Iterable[Answer],
    show: Callable[[Any], Any] = lambda item: item,
) -> Steps[Reply]:
    """
    Return an answer with a page of a list, in steps, as encoding some hundred items takes milliseconds.

    @param items: the items of the page, which are removed from the list.
    @param after: the key after which the next page begins; L{None} if this is the last one.
    @param answers: the answers of the workers, for those without one.
    @param show: converts an item to JSON values.
    """
    parts = []
    for index, item in enumerate(consume(items)):
        if index % WRITTEN == 0:
            yield
        parts.append(compact(show(item)))
    yield
    rest = compact({"next": after, "problems": problems_of(answers)})
    return Reply(200, b'{"items":[%b],%b\n' % (b",".join(parts), rest[1:]))
