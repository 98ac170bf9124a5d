"""What the ends of a tunnel agree on when one connection is to carry many streams."""

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
    How one end wants its streams carried.

    @ivar window: bytes that either end may send on a stream to begin with, if the
        other end agrees to change them.
    @ivar ping_interval: see L{MuxSession<reverseproxy.mux.session.MuxSession>},
        as for the others.
    """

    limits: MuxLimits = field(default_factory=MuxLimits)
    ping_interval: float = PING_INTERVAL
    ping_timeout: float = PING_TIMEOUT
    window: int = SMALL_WINDOW

    @classmethod
    def of(cls, config: TunnelAgentConfig | TunnelConfig) -> StreamSettings | None:
        """
        Take the settings from the configuration of an agent, or of a tunnel filter.

        @return: L{None} if connections are to be lent as a whole.
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
        """What an agent offers, best first."""
        return (YAMUX,)

    def choose(self, offered: tuple[str, ...]) -> str:
        """
        Choose on a server what to do.

        @param offered: what the agent can do.
        @return: empty if there is nothing that both can do.
        """
        return YAMUX if YAMUX in offered else ""

    def agree(self, offered: int) -> int:
        """
        Choose on a server with how many bytes streams begin.

        @param offered: what the agent has offered; 0 if nothing.
        @return: 0 for what yamux says.
        """
        return min(self.window, offered)

    def limits_with(self, window: int, tells: bool = False, moves: bool = False) -> MuxLimits:
        """
        What both ends keep to once they have agreed.

        @param window: what the server has chosen; 0 for what yamux says.
        @param tells: whether the server wants to be told of the agent's service.
        @param moves: whether the server says when it is about to leave.
        """
        first = window or INITIAL_WINDOW
        return replace(self.limits, first=first, window=first, tells=tells, moves=moves)
