"""The keys for multiplexed streams that both ends of a tunnel have."""

from __future__ import annotations

__all__ = ["longest_answer", "longest_silence", "most_growth", "most_on_the_way"]

from typing import Any

from reverseproxy.config._base import key


def longest_silence(peer: str) -> Any:
    """Return the field C{mux_ping_interval}; C{peer} is the name of the other end."""
    return key(
        2.0,
        f"On a connection that carries many requests: after how long without a byte from the {peer} it is "
        "asked whether it is there.",
        ours=True,
    )


def longest_answer(peer: str) -> Any:
    """Return the field C{mux_ping_timeout}; C{peer} is the name of the other end."""
    return key(2.5, f"How long the {peer} may take to answer that, before the connection ends.", ours=True)


def most_on_the_way(own: str) -> Any:
    """Return the field C{mux_max_window}; C{own} is the name of this end."""
    return key(
        2**26,
        f"The most bytes that may be on their way to this {own} for one request or session, when the "
        "connection is slow to answer but fast to carry. Each begins with less.",
        ours=True,
    )


def most_growth() -> Any:
    """Return the field C{mux_max_window_growth}."""
    return key(
        2**26,
        "By how many bytes all requests and sessions of one connection together may have more than they "
        "begin with.",
        ours=True,
    )
