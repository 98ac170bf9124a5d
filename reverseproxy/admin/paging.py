"""
Pages of lists that change while they are read, and of which several workers have parts: pure.

A page begins after a key, and says after which key the next one begins.  Where it ends is
settled by the keys that were looked at, never by how many items came of it: what is
looked at may have left before it was described, which ends no list.
"""

from __future__ import annotations

__all__ = ["cut", "end_of", "page_of_items"]

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, TypeVar

T = TypeVar("T")


def end_of(items: Sequence[T], limit: int, key: Callable[[T], object]) -> int:
    """
    Say how many items make a page.

    What has the same key is not taken apart, as the next page begins after a key.

    @param items: in the order of their keys.
    @return: C{limit} at the most, unless more have the first key.
    """
    if len(items) <= limit:
        return len(items)
    end = limit
    while end and key(items[end - 1]) == key(items[end]):
        end -= 1
    if not end:
        end = limit
        while end < len(items) and key(items[end]) == key(items[0]):
            end += 1
    return end


def cut(
    items: list[dict[str, Any]], lasts: Iterable[str | None], limit: int, by: str
) -> tuple[list[dict[str, Any]], str | None]:
    """
    Make a page of what several have told of the same list.

    Of who has more to tell, nothing is known beyond the last key that it has looked at, so
    that the page ends there at the latest.

    @param items: in the order of their keys.
    @param lasts: of each that was asked, up to which key it has told all; L{None} if it has told all.
    @param by: what the key is.
    @return: the items, and after which key the next page begins; L{None} if there is none.
    """
    last = min((each for each in lasts if each is not None), default=None)
    if last is not None:
        items = [item for item in items if item[by] <= last]
    end = end_of(items, limit, itemgetter(by))
    return (items, last) if end == len(items) else (items[:end], items[end - 1][by])


def page_of_items(
    items: Iterable[dict[str, Any]], arguments: Mapping[str, Any], by: str = "name"
) -> dict[str, Any]:
    """
    Make a page of what one process has at this moment.

    @param arguments: C{after} and C{limit}.
    @return: C{items}, and C{last}: the last key that was looked at if there is more, else L{None}.
    """
    after = arguments.get("after", "")
    known = sorted((item for item in items if item[by] > after), key=itemgetter(by))
    found, last = cut(known, (), arguments.get("limit", 100), by)
    return {"items": found, "last": last}
