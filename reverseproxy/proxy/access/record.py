"""The record of a request or session that has ended, from which its line of the access log is made."""

from __future__ import annotations

__all__ = ["AccessRecord", "RequestDetails", "Client", "IClient", "Lookup", "UpstreamDetails", "Times"]

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from reverseproxy.identity import AgentIdentity
from reverseproxy.metrics import NOWHERE, IDestination

Lookup = Callable[[str], str | None]


class IClient(Protocol):
    """
    The connection of a client; a L{ConnectionInfo<reverseproxy.interfaces.ConnectionInfo>} is one.
    """

    @property
    def remote(self) -> str:
        """The client's address."""

    @property
    def local(self) -> str:
        """Our address towards the client."""

    @property
    def number(self) -> int:
        """Tells the connection from all others of clients; 0 if it is not ours."""


class Client(NamedTuple):
    """See L{IClient}."""

    remote: str = ""
    local: str = ""
    number: int = 0


class RequestDetails(NamedTuple):
    """
    What a request asks for.

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


class UpstreamDetails(NamedTuple):
    """
    The host that served a request, and the connection to it.

    @ivar cluster: the cluster of the route.
    @ivar host: the host: its name if it has one, else its address.
    @ivar server: the server of the fleet that has the host; empty for this one.
    @ivar agent: the agent that connected the host; L{None} if none did.
    @ivar local: our address towards the host.
    @ivar attempts: how many hosts were tried, one after the other.
    @ivar connection: the number of the connection or stream to the host, unique in this process; 0 for none.
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
    How long the parts of a request took, in seconds.

    @ivar waited: until a host was free.
    @ivar dialled: until connections to hosts were made.
    @ivar sent: from the start until the request was sent to a host; L{None} if it was not.
    @ivar answered: from the start until the response began; L{None} if it did not.
    """

    waited: float = 0.0
    dialled: float = 0.0
    sent: float | None = None
    answered: float | None = None


_NO_CLIENT: Final = Client()
_NOTHING: Final = RequestDetails()
_NOBODY: Final = UpstreamDetails()
_NO_TIME: Final = Times()


@dataclass(slots=True)
class AccessRecord:
    """
    A request or session that has ended.

    Text that came as bytes is decoded as UTF-8 with C{surrogateescape}.  Empty
    text stands for "not known".

    @ivar protocol: C{"Http1"}, C{"bolt"}, C{"tcp"}, ...
    @ivar client: the client's connection.
    @ivar request: what the request was for.
    @ivar rule: the rule of the router that matched.
    @ivar upstream: the host that served it.
    @ivar times: how long its parts took.
    @ivar start: when it began, in seconds since the epoch; 0.0 for C{duration}
        seconds before the record is written.
    @ivar duration: seconds from then to the end.
    @ivar status: the status that was sent, in RPC in terms of HTTP; 0 for none.
    @ivar bytes_received: body or session bytes from the client.
    @ivar bytes_sent: body or session bytes to the client.
    @ivar response_headers: looks a response header up by its lower-case name.
    @ivar flag: why the proxy ended or answered it instead of the host, in words; empty
        if the host answered.
    @ivar flags: the same as L{reverseproxy.proxy.flags.ResponseFlag}.
    @ivar trace_id: the trace that spans were made for, in 32 digits; empty for none.
    @ivar forwarded_by: the server of the fleet that has forwarded it to this one; empty for none.
    """

    protocol: str
    client: IClient = _NO_CLIENT
    request: RequestDetails = _NOTHING
    rule: IDestination = NOWHERE
    upstream: UpstreamDetails = _NOBODY
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
