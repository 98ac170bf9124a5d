"""What is known of a request or session when it has ended."""

from __future__ import annotations

__all__ = ["AccessRecord", "Asked", "Client", "IClient", "Lookup", "Served", "Times"]

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from reverseproxy.identity import AgentIdentity
from reverseproxy.metrics import NOWHERE, IPlace

Lookup = Callable[[str], str | None]


class IClient(Protocol):
    """
    The connection of a client; a L{ConnectionInfo<reverseproxy.interfaces.ConnectionInfo>} is one.

    @ivar remote: the client's address.
    @ivar local: our address towards the client.
    @ivar number: tells the connection from all others of clients; 0 if it is not ours.
    """

    @property
    def remote(self) -> str:
        """See above."""

    @property
    def local(self) -> str:
        """See above."""

    @property
    def number(self) -> int:
        """See above."""


class Client(NamedTuple):
    """See L{IClient}."""

    remote: str = ""
    local: str = ""
    number: int = 0


class Asked(NamedTuple):
    """
    What a request is for.

    @ivar method: the request method.
    @ivar path: the path as the client sent it, without the query.
    @ivar query: what follows the C{?}.
    @ivar host: the Host header.
    @ivar scheme: C{"http"} or C{"https"}.
    @ivar headers: looks a header up by its lower-case name.
    @ivar service: what an RPC request is for.
    @ivar operation: which operation of it the request calls.
    """

    method: str = ""
    path: str = ""
    query: str = ""
    host: str = ""
    scheme: str = ""
    headers: Lookup | None = None
    service: str = ""
    operation: str = ""


class Served(NamedTuple):
    """
    Who has served it.

    @ivar cluster: the cluster of the route.
    @ivar host: the host: its name if it has one, else its address.
    @ivar server: the server of the fleet that has the host; empty for this one.
    @ivar agent: who has brought the host; L{None} if no agent has.
    @ivar local: our address towards the host.
    @ivar attempts: how many hosts were taken for it, one after the other.
    @ivar connection: tells the connection to the host, or the stream, from all others to hosts; 0 for none.
    """

    cluster: str = ""
    host: str = ""
    server: str = ""
    agent: AgentIdentity | None = None
    local: str = ""
    attempts: int = 0
    connection: int = 0


class Times(NamedTuple):
    """
    How long parts of it took, in seconds.

    @ivar waited: in which it waited for a host that is free.
    @ivar dialled: in which connections to hosts were made for it.
    @ivar sent: from the start until the request went upstream; L{None} if it did not.
    @ivar answered: from the start until the response began; L{None} if it did not.
    """

    waited: float = 0.0
    dialled: float = 0.0
    sent: float | None = None
    answered: float | None = None


_NO_CLIENT: Final = Client()
_NOTHING: Final = Asked()
_NOBODY: Final = Served()
_NO_TIME: Final = Times()


@dataclass(slots=True)
class AccessRecord:
    """
    What is known at the end of a request or session.

    Text that came as bytes is decoded as UTF-8 with C{surrogateescape}.  Empty
    text stands for "not known".

    @ivar protocol: C{"Http1"}, C{"bolt"}, C{"tcp"}, ...
    @ivar client: whose it is.
    @ivar asked: what it was for.
    @ivar rule: what has taken it.
    @ivar served: who has served it.
    @ivar times: how long parts of it took.
    @ivar start: when it began, in seconds since the epoch; 0.0 for C{duration}
        before it is written.
    @ivar duration: seconds from then to the end.
    @ivar status: the status that was sent, in RPC in terms of HTTP; 0 for none.
    @ivar bytes_received: body or session bytes from the client.
    @ivar bytes_sent: body or session bytes to the client.
    @ivar response_headers: looks a response header up by its lower-case name.
    @ivar flag: why the proxy itself ended or answered it, in a few words; empty
        when the host answered.
    @ivar flags: the same as L{Flags<reverseproxy.proxy.flags.Flag>}.
    @ivar trace_id: the trace that we have made spans for, in 32 digits.
    @ivar forwarded_by: the server of the fleet that has forwarded it to this one; empty for none.
    """

    protocol: str
    client: IClient = _NO_CLIENT
    asked: Asked = _NOTHING
    rule: IPlace = NOWHERE
    served: Served = _NOBODY
    times: Times = _NO_TIME
    start: float = 0.0
    duration: float = 0.0
    status: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0
    response_headers: Lookup | None = None
    flag: str = ""
    flags: int = 0
    trace_id: str = ""
    forwarded_by: str = ""
