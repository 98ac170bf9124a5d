"""
The share of the process's time that TLS handshakes with clients take.

A handshake is the most work that a client can cause without authentication.  There is one
L{TimeShare} for all of them in each reactor.
"""

from __future__ import annotations

__all__ = ["SHARE", "handshake_share_of", "set_handshake_share"]

from typing import Any, Final
from weakref import WeakKeyDictionary

from twisted.internet.interfaces import IReactorTime

from reverseproxy.limits.refusals import REFUSALS
from reverseproxy.net.time_share import TimeShare

SHARE: Final = 50
"""The default share, in percent of the time."""

_share = SHARE / 100
_shares: WeakKeyDictionary[Any, TimeShare] = WeakKeyDictionary()


def handshake_share_of(clock: IReactorTime) -> TimeShare:
    """Return the L{TimeShare} of the handshakes in a reactor."""
    share = _shares.get(clock)
    if share is None:
        failure = "a protocol failed at the end of its TLS handshake"
        share = _shares[clock] = TimeShare(clock, _share, "TLS handshakes", failure, _count_refusal)
    return share


def set_handshake_share(percent: int) -> None:
    """Set the share for all reactors of this process."""
    global _share
    _share = percent / 100
    for each in _shares.values():
        each.share = _share


def _count_refusal() -> None:
    REFUSALS["tls_waiting"] += 1
