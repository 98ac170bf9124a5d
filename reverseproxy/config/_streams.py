"""Keys of both ends of a tunnel that are for connections that carry many streams."""

from __future__ import annotations

__all__ = ["longest_answer", "longest_silence", "most_growth", "most_on_the_way"]

from typing import Any

from reverseproxy.config._base import key


def longest_silence(peer: str) -> Any:
    """C{mux_ping_interval}, of the end whose peer is called so."""
    return key(
        2.0,
        f"On a connection that carries many requests: after how long without a byte from the {peer} it is "
        "asked whether it is there.",
        ours=True,
    )


def longest_answer(peer: str) -> Any:
    """C{mux_ping_timeout}."""
    return key(2.5, f"How long the {peer} may take to answer that, before the connection ends.", ours=True)


def most_on_the_way(own: str) -> Any:
    """C{mux_max_window}, of the end that is called so."""
    return key(
        2**26,
        f"The most bytes that may be on their way to this {own} for one request or session, when the "
        "connection is slow to answer but fast to carry. Each begins with less.",
        ours=True,
    )


def most_growth() -> Any:
    """C{mux_max_window_growth}."""
    return key(
        2**26,
        "By how many bytes all requests and sessions of one connection together may have more than they "
        "begin with.",
        ours=True,
    )
