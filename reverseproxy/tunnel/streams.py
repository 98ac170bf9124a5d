"""The negotiation of streams between the ends of a tunnel."""

from __future__ import annotations

__all__ = ["StreamSettings"]

from dataclasses import dataclass, field, replace

from reverseproxy.config.models import TunnelAgentConfig, TunnelConfig
from reverseproxy.mux.session import PING_INTERVAL, PING_TIMEOUT
from reverseproxy.wire.mosn.extensions import YAMUX
from reverseproxy.wire.yamux.events import INITIAL_WINDOW, SMALL_WINDOW, MuxLimits


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """
    One end's settings for streams.

    @ivar limits: limits of sessions.
    @ivar ping_interval: see L{MuxSession<reverseproxy.mux.session.MuxSession>}, as for C{ping_timeout}.
    @ivar window: the initial window of streams in bytes, if both ends agree to deviate from yamux's.
    """

    limits: MuxLimits = field(default_factory=MuxLimits)
    ping_interval: float = PING_INTERVAL
    ping_timeout: float = PING_TIMEOUT
    window: int = SMALL_WINDOW

    @classmethod
    def of(cls, config: TunnelAgentConfig | TunnelConfig) -> StreamSettings | None:
        """
        Return the settings in the configuration of an agent, or of a tunnel filter.

        @return: L{None} if connections are not to carry streams.
        """
        if not config.mux:
            return None
        return cls(
            MuxLimits(max_window=config.mux_max_window, receive_budget=config.mux_max_window_growth),
            config.mux_ping_interval,
            config.mux_ping_timeout,
        )

    @property
    def offer(self) -> tuple[str, ...]:
        """The protocols that an agent offers, best first."""
        return (YAMUX,)

    def choose(self, offered: tuple[str, ...]) -> str:
        """
        Choose a protocol, on a server.

        @param offered: those that the agent offers.
        @return: empty if no common one exists.
        """
        return YAMUX if YAMUX in offered else ""

    def agree(self, offered: int) -> int:
        """
        Choose the initial window, on a server.

        @param offered: what the agent offers, in bytes; 0 if it offers none.
        @return: 0 for yamux's default.
        """
        return min(self.window, offered)

    def limits_with(self, window: int, tells: bool = False, moves: bool = False) -> MuxLimits:
        """
        Return the limits with what was negotiated.

        @param window: the initial window that the server has chosen; 0 for yamux's default.
        @param tells: whether the agent reports the health of its service.
        @param moves: whether the server announces that it is about to leave.
        """
        first = window or INITIAL_WINDOW
        return replace(self.limits, first=first, window=first, tells=tells, moves=moves)
