"""
Plots as SVG, small enough to be kept beside the text that they belong to.
"""

from __future__ import annotations

__all__ = ["Bar", "bars", "lines", "nice_ticks", "short"]

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH = 760
_COLORS = ("#1f6feb", "#d1570a", "#2a9d5c", "#8250df", "#b08800", "#6e7781", "#cf222e", "#0a7ea4")
_GOOD, _BAD, _PLAIN = "#2a9d5c", "#cf222e", "#8c959f"
_STYLE = (
    "<style>text{font:12px system-ui,sans-serif;fill:#24292f}.t{font-size:14px;font-weight:600}"
    ".m{fill:#57606a;font-size:11px}.g{stroke:#d0d7de;stroke-width:1}</style>"
)


def short(value: float) -> str:
    """A number for people, in little room: 1,234 is 1.2k."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            number = value / size
            return (
                f"{number:.0f}{suffix}" if number >= 100 or number == int(number) else f"{number:.1f}{suffix}"
            )
    if value == int(value):
        return f"{value:.0f}"
    return f"{value:.2f}".rstrip("0") if abs(value) < 10 else f"{value:.0f}"


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers between two values, and one at or above the higher one."""
    if high <= low:
        high = low + 1
    rough = (high - low) / count
    size = 10 ** math.floor(math.log10(rough))
    step = next(factor * size for factor in (1, 2, 2.5, 5, 10) if factor * size >= rough * 0.999)
    first = math.floor(low / step)
    last = math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def _svg(height: float, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" '
        f'width="{_WIDTH}" height="{height:.0f}" role="img" aria-label="{escape(title)}">'
        f'{_STYLE}<rect width="100%" height="100%" fill="#fff"/>'
        f'<text class="t" x="12" y="22">{escape(title)}</text>' + "".join(parts) + "</svg>\n"
    )


@dataclass(frozen=True)
class Bar:
    """
    One bar.

    @ivar text: what stands behind it; its value if empty.
    @ivar mark: where a line is to stand across it; None for none.
    @ivar good: green or red; None for neither.
    @ivar series: the color of one of the lines of L{lines}, if it is neither; None for none.
    """

    label: str
    value: float
    text: str = ""
    mark: float | None = None
    good: bool | None = None
    series: int | None = None


def bars(title: str, items: Sequence[Bar]) -> str:
    """Draw bars below each other, from 0."""
    left, right, top, pitch = 350, 90, 36, 24
    most = max([1e-9, *(bar.value for bar in items), *(bar.mark or 0 for bar in items)])
    scale = (_WIDTH - left - right) / most
    parts = []
    for index, bar in enumerate(items):
        y = top + index * pitch
        color = _PLAIN if bar.series is None else _COLORS[bar.series]
        if bar.good is not None:
            color = _GOOD if bar.good else _BAD
        end = left + bar.value * scale
        parts.append(
            f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{escape(bar.label)}</text>'
            f'<rect x="{left}" y="{y + 2}" width="{max(1.0, bar.value * scale):.1f}" height="14" '
            f'fill="{color}"/>'
        )
        if bar.mark is not None:
            x = left + bar.mark * scale
            end = max(end, x)
            parts.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y - 1}" y2="{y + 19}" stroke="#24292f" '
                'stroke-width="2"/>'
            )
        parts.append(
            f'<text class="m" x="{end + 6:.1f}" y="{y + 13}">{escape(bar.text or short(bar.value))}</text>'
        )
    return _svg(top + len(items) * pitch + 10, title, parts)


def _positions(ticks: Sequence[float], low: float, high: float, log: bool) -> list[float]:
    if log:
        span = math.log(high / low) or 1.0
        return [math.log(tick / low) / span for tick in ticks]
    return [(tick - low) / ((high - low) or 1.0) for tick in ticks]


def lines(
    title: str,
    x_title: str,
    y_title: str,
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    log_x: bool = True,
    x_text: Mapping[float, str] | None = None,
) -> str:
    """
    Draw lines through points; the vertical axis begins at 0.

    @param series: points by name.
    @param log_x: whether the horizontal axis is logarithmic; its values are positive then.
    @param x_text: what stands below some values.
    """
    left, right, top, below = 64, 16, 50, 44
    height = 260
    xs = sorted({x for points in series.values() for x, _ in points})
    most = max([0.0, *(y for points in series.values() for _, y in points)])
    if not xs:
        return _svg(60, title, ['<text class="m" x="12" y="44">nothing was measured</text>'])
    ticks = nice_ticks(0.0, most)
    x_low, x_high = xs[0], xs[-1]
    wide, high = _WIDTH - left - right, height - top - below

    def place(x: float, y: float) -> tuple[float, float]:
        [across] = _positions([x], x_low, x_high, log_x) if x_high > x_low else [0.5]
        return left + across * wide, height - below - y / (ticks[-1] or 1.0) * high

    parts = [f'<text class="m" x="{left}" y="{top - 4}">{escape(y_title)}</text>']
    for tick in ticks:
        _, y = place(x_low, tick)
        parts.append(
            f'<line class="g" x1="{left}" x2="{_WIDTH - right}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="m" x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{short(tick)}</text>'
        )
    marked = xs if log_x or x_text else nice_ticks(x_low, x_high)
    last = -100.0
    for x in marked:
        across, _ = place(x, 0)
        if across - last < 34 or across > _WIDTH - right + 1:
            continue
        last = across
        text = (x_text or {}).get(x, short(x))
        parts.append(
            f'<text class="m" x="{across:.1f}" y="{height - below + 16}" text-anchor="middle">'
            f"{escape(text)}</text>"
        )
    parts.append(
        f'<text class="m" x="{left + wide / 2:.0f}" y="{height - 10}" text-anchor="middle">'
        f"{escape(x_title)}</text>"
    )
    for index, (name, points) in enumerate(series.items()):
        color = _COLORS[index % len(_COLORS)]
        placed = [place(x, y) for x, y in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        if len(placed) <= 40:
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{color}"/>' for x, y in placed]
        row, column = divmod(index, 2)
        x, y = left + column * 350, height + 12 + row * 18
        parts.append(
            f'<rect x="{x}" y="{y - 9}" width="12" height="4" fill="{color}"/>'
            f'<text x="{x + 18}" y="{y - 3}">{escape(name)}</text>'
        )
    return _svg(height + 18 * math.ceil(len(series) / 2) + 8, title, parts)
