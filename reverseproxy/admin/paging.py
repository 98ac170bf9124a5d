"""
Pages of lists that change while they are read, and that are distributed over several workers; pure.

A page begins after a key, and names the key after which the next one begins.  A page ends
at the last key that was examined, even if fewer items were returned: an item may
disappear between its choice and its description, which must not end the list.
"""

from __future__ import annotations

__all__ = ["Before", "cut", "end_of", "first_items", "latest_page", "page_of_items"]

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from math import inf
from operator import itemgetter
from typing import Any, Final, TypeVar

from reverseproxy.admin.slices import Steps

T = TypeVar("T")

Before = tuple[float, int]
"""
Where a page of a list begins that has the latest entry first: the time of the last entry before, and how many
entries of this time were listed already.
"""

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
    items: Iterable[Mapping[str, Any]], limit: int, before: Before | None, more: bool = False
) -> tuple[list[Mapping[str, Any]], Before | None]:
    """
    Return a page of entries, the latest first.

    @param items: in the order of their times, the latest first.
    @param before: where the page begins; L{None} for the first page.
    @param more: whether there are entries that are older than all C{items}.
    @return: the entries, and where the next page begins; L{None} if there is none.
    """
    time, listed = before or (inf, 0)
    found: list[Mapping[str, Any]] = []
    passed = 0
    for item in items:
        if item["time"] > time:
            continue
        if item["time"] == time and passed < listed:
            passed += 1
        elif len(found) == limit:
            more = True
            break
        else:
            found.append(item)
    if not more or not found:
        return found, None
    last = found[-1]["time"]
    same = sum(item["time"] == last for item in found)
    return found, (last, same + (listed if last == time else 0))
