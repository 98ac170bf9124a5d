"""An end of a relay between another worker or server and an agent of this process."""

from __future__ import annotations

__all__ = ["ForwardingEnd"]

from typing import Final

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from reverseproxy.mux.session import StreamRefused
from reverseproxy.proxy.relay import RelayEnd
from reverseproxy.proxy.tcp.failover import disown
from reverseproxy.transport.closing import CloseLimits

_CLOSE_LIMITS: Final = CloseLimits(excused=True)


class ForwardingEnd(RelayEnd):
    """One end of the relay; if the agent refuses its stream, the other end's is refused, too."""

    close_limits = _CLOSE_LIMITS

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Refuse the other end's stream, if the agent has refused this one's."""
        if self._peer is not None and not self._peer.lost and reason.check(StreamRefused):
            disown(self._peer.transport)
        super().connectionLost(reason)
