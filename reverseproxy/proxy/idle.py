"""Idle timeouts of relayed sessions."""

from __future__ import annotations

__all__ = ["SESSION_IDLE", "session_idle"]

from typing import Final

SESSION_IDLE: Final = 3600.0
"""Seconds without data after which a relayed session is closed by default."""


def session_idle(own: float | None, listener: float | None) -> float | None:
    """
    Return the idle timeout of relayed sessions.

    @param own: the one configured for them; L{None} for none, 0 for any time.
    @param listener: the one configured for the listener's connections, as in MOSN.
    @return: seconds; L{None} for any time.
    """
    said = listener if own is None else own
    return SESSION_IDLE if said is None else said or None
