"""
Pages of lists that change while they are read, and that are distributed over several workers; pure.

A page begins after a key, and names the key after which the next one begins.  A page ends
at the last key that was examined, even if fewer items were returned: an item may
disappear between its choice and its description, which must not end the list.
"""

from __future__ import annotations

__all__ = ["cut", "end_of", "first_items", "latest_page", "page_of_items"]

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from operator import itemgetter
from typing import Any, Final, TypeVar

from reverseproxy.admin.slices import Steps

T = TypeVar("T")

STRIDE: Final = 50
"""How many items are sorted in one step; see L{reverseproxy.admin.slices}."""


def end_of(items: Sequence[T], limit: int, key: Callable[[T], object]) -> int:
    """
    Return the number of items of a page.

    Items with equal keys are on the same page, as the next page begins after a key.

    @param items: in the order of their keys.
    @return: at most C{limit}, unless more items have the first key.
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
    Cut a page from the merged items of several workers.

    A worker with more items has returned only those up to its last examined key, so that the page must end at
    the smallest of these keys at the latest.

    @param items: in the order of their keys.
    @param lasts: each worker's last examined key; L{None} for a worker that has returned all its items.
    @param by: the name of the key in the items.
    @return: the items of the page, and the key after which the next one begins; L{None} if there is none.
    """
    last = min((each for each in lasts if each is not None), default=None)
    if last is not None:
        items = [item for item in items if item[by] <= last]
    end = end_of(items, limit, itemgetter(by))
    return (items, last) if end == len(items) else (items[:end], items[end - 1][by])


def first_items(items: Iterable[T], limit: int, key: Callable[[T], Any]) -> Steps[list[T]]:
    """
    Return the items of a page, and those behind them that L{end_of} needs, in the order of their keys.

    @param items: in any order.
    """
    found: list[T] = []
    rest = iter(items)
    while portion := list(islice(rest, STRIDE)):
        yield
        found = sorted([*found, *portion], key=key)
        if len(found) > limit:
            end = limit + 1
            while end < len(found) and key(found[end]) == key(found[0]):
                end += 1
            del found[end + 1 :]
    return found


def page_of_items(
    items: Iterable[dict[str, Any]], arguments: Mapping[str, Any], by: str = "name"
) -> Steps[dict[str, Any]]:
    """
    Return a page of one process's items.

    @param arguments: C{after} and C{limit}.
    @param by: the name of the key in the items.
    @return: C{items}, and C{last}: the last examined key if there are more items, else L{None}.
    """
    after = arguments.get("after", "")
    limit = arguments.get("limit", 100)
    known = yield from first_items((item for item in items if item[by] > after), limit, itemgetter(by))
    found, last = cut(known, (), limit, by)
    return {"items": found, "last": last}


def latest_page(
    items: Iterable[Mapping[str, Any]], limit: int, before: float | None, more: bool = False
) -> dict[str, Any]:
    """
    Return a page of entries, the latest first; the next page begins before the time of its last entry.

    Entries of the same time are on the same page, even if there are more than C{limit} then.

    @param items: in the order of their times, the latest first.
    @param before: the time before which the page begins; L{None} for the first page.
    @param more: whether there are entries that are older than all C{items}.
    @return: C{items}, and C{last}: the time of the last entry if there may be older ones, else L{None}.
    """
    found: list[Mapping[str, Any]] = []
    for item in items:
        if before is not None and item["time"] >= before:
            continue
        if len(found) >= limit and item["time"] < found[-1]["time"]:
            more = True
            break
        found.append(item)
    return {"items": found, "last": found[-1]["time"] if more and found else None}
