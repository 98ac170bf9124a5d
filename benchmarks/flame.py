"""
What a sampling profiler saw: sums by function and by place, and flame graphs.

The input is py-spy's raw output: lines of frames, outermost first, separated by
semicolons, then a space and the number of samples.
"""

from __future__ import annotations

__all__ = ["flame", "own", "place", "read", "shorten", "without_waiting"]

import re
import sys
import zlib
from collections import Counter
from collections.abc import Callable
from html import escape

Stacks = Counter[tuple[str, ...]]

_WIDTH = 1200
_HEIGHT = 16
_WAITS = re.compile(r"\bdoPoll \(")
_LEAST = 0.004  # share of all samples below which a frame is not drawn
_CHARACTER = 6.6  # width, about


def shorten(function: str) -> str:
    """Leave of a path what tells where a function is: the last three parts."""
    name, _, path = function.partition(" (")
    return f"{name} ({'/'.join(path.split('/')[-3:])}" if path else name


def place(function: str) -> str:
    """
    Where a function belongs: a module of ours, a package of others, Python, or epoll.

    @param function: C{name (path:line)}.
    """
    path = re.sub(r":\d+$", "", function.partition(" (")[2].rstrip(")"))
    path = path.rpartition("site-packages/")[2]
    if _WAITS.search(function):
        return "epoll"
    ours = re.search(r"(reverseproxy/.+)\.py$", path)
    if ours is not None:
        return ours[1].removesuffix("/__init__")
    package, slash, _ = path.lstrip("/").partition("/")
    # what begins at the root is Python's own library, as its packages are
    if not slash or path.startswith("/") or package in sys.stdlib_module_names or "." in package:
        return "Python"
    return package


def read(text: str) -> Stacks:
    """Read stacks, outermost frame first; lines that are none are left out."""
    stacks: Stacks = Counter()
    for line in text.splitlines():
        frames, _, number = line.rpartition(" ")
        if frames and number.isdigit():
            stacks[tuple(frames.split(";"))] += int(number)
    return stacks


def without_waiting(stacks: Stacks, idle: float) -> Stacks:
    """
    Take off the samples in which a process waited for events.

    They cannot be told from those in which it asked for them, but how long it did
    not run is known.

    @param idle: the share of the time in which it did not run.
    """
    total = sum(stacks.values())
    waits = sum(count for frames, count in stacks.items() if _WAITS.search(frames[-1]))
    if not waits:
        return stacks
    keep = max(0.0, 1.0 - idle * total / waits)
    kept: Stacks = Counter()
    for frames, count in stacks.items():
        if _WAITS.search(frames[-1]):
            count = round(count * keep)
        if count:
            kept[frames] = count
    return kept


def own(stacks: Stacks, name: Callable[[str], str] = shorten) -> list[tuple[str, float]]:
    """
    Sum up the samples in which something was running itself.

    @param name: what to sum by.
    @return: names and their shares of all samples, most first.
    """
    sums: Counter[str] = Counter()
    for frames, count in stacks.items():
        sums[name(frames[-1])] += count
    total = sum(sums.values()) or 1
    return [(what, count / total) for what, count in sums.most_common()]


class _Node:
    def __init__(self) -> None:
        self.count = 0
        self.children: dict[str, _Node] = {}


def flame(title: str, stacks: Stacks) -> str:
    """Draw a flame graph, SVG; the outermost frames are at the top.  Pointing at a frame tells its share."""
    root = _Node()
    for frames, count in stacks.items():
        node = root
        node.count += count
        for frame in frames:
            node = node.children.setdefault(shorten(frame), _Node())
            node.count += count
    total = root.count or 1
    # frames that all samples have in common say nothing
    while len(root.children) == 1:
        [only] = root.children.values()
        if not only.children or only.count < root.count:
            break
        root = only
    parts: list[str] = []
    deepest = _draw(root, 0, 0.0, total, parts)
    height = 30 + (deepest + 1) * _HEIGHT + 6
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" '
        f'height="{height}"><style>text{{font:11px monospace;pointer-events:none}}'
        f".t{{font:600 14px system-ui,sans-serif}}rect{{stroke:#fff;stroke-width:.5}}</style>"
        f'<rect width="100%" height="100%" fill="#fff"/><text class="t" x="6" y="19">{escape(title)}</text>'
        + "".join(parts)
        + "</svg>\n"
    )


def _draw(node: _Node, depth: int, left: float, total: int, parts: list[str]) -> int:
    """Draw what is below a node; returns the depth that it came to."""
    deepest = depth
    for name, child in sorted(node.children.items(), key=lambda item: -item[1].count):
        share = child.count / total
        if share < _LEAST:
            continue
        width, y = share * _WIDTH, 30 + depth * _HEIGHT
        room = int((width - 4) / _CHARACTER)
        label = name.partition(" (")[0]
        if len(label) > room:
            label = label[: room - 1] + "…" if room > 3 else ""
        parts.append(
            f"<g><title>{escape(name)} {share:.1%}</title>"
            f'<rect x="{left:.1f}" y="{y}" width="{width:.1f}" height="{_HEIGHT}" fill="{_color(name)}"/>'
            + (f'<text x="{left + 2:.1f}" y="{y + 12}">{escape(label)}</text>' if label else "")
            + "</g>"
        )
        deepest = max(deepest, _draw(child, depth + 1, left, total, parts))
        left += width
    return deepest


def _color(name: str) -> str:
    """Warm for ours, cool for others'; the same name has always the same color."""
    number = zlib.crc32(name.encode())
    if "reverseproxy/" in name or "/transport/" in name or "/proxy/" in name or "/wire/" in name:
        return f"hsl({20 + number % 30},85%,{62 + number // 64 % 14}%)"
    return f"hsl({190 + number % 40},45%,{68 + number // 64 % 12}%)"
