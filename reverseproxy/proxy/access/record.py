"""What is known of a request or session when it has ended."""

from __future__ import annotations

__all__ = ["AccessRecord", "Lookup"]

from collections.abc import Callable
from dataclasses import dataclass

from reverseproxy.identity import AgentIdentity

Lookup = Callable[[str], str | None]


@dataclass(slots=True)
class AccessRecord:
    """
    What is known at the end of a request or session.

    Text that came as bytes is decoded as UTF-8 with C{surrogateescape}.  Empty
    text stands for "not known".

    @ivar protocol: C{"Http1"}, C{"bolt"}, C{"tcp"}, ...
    @ivar start: when it began, in seconds since the epoch; 0.0 for C{duration}
        before it is written.
    @ivar duration: seconds from then to the end.
    @ivar method: the request method.
    @ivar path: the path as the client sent it, without the query.
    @ivar query: what follows the C{?}.
    @ivar host: the Host header.
    @ivar scheme: C{"http"} or C{"https"}.
    @ivar service: what an RPC request is for.
    @ivar rpc_method: which operation of it the request calls.
    @ivar status: the status that was sent, in RPC in terms of HTTP; 0 for none.
    @ivar bytes_received: body or session bytes from the client.
    @ivar bytes_sent: body or session bytes to the client.
    @ivar remote: the client's address.
    @ivar local: our address towards the client.
    @ivar upstream_host: the host: its name if it has one, else its address.
    @ivar upstream_server: the server of the fleet that has the host; empty for this one.
    @ivar forwarded_by: the server of the fleet that has forwarded it to this one; empty for none.
    @ivar upstream_local: our address towards the host.
    @ivar cluster: the cluster of the route.
    @ivar agent: who has brought the host; L{None} if no agent has.
    @ivar flag: why the proxy itself ended or answered it, in a few words; empty
        when the host answered.
    @ivar flags: the same as L{Flags<reverseproxy.proxy.flags.Flag>}.
    @ivar route: the name of the rule that took it.
    @ivar virtual_host: the name of the virtual host that has the rule.
    @ivar attempts: how many hosts were taken for it, one after the other.
    @ivar waited: seconds in which it waited for a host that is free.
    @ivar dialled: seconds in which connections to hosts were made for it.
    @ivar request_received: seconds from the start until the request went
        upstream; L{None} if it did not.
    @ivar response_received: seconds from the start until the response began;
        L{None} if it did not.
    @ivar connection_id: the number of the client's connection; 0 for none.
    @ivar upstream_connection_id: the number of the connection to the host.
    @ivar request_headers: looks a request header up by its lower-case name.
    @ivar response_headers: the same for the response.
    @ivar trace_id: the trace that we have made spans for, in 32 digits.
    """

    protocol: str
    start: float = 0.0
    duration: float = 0.0
    method: str = ""
    path: str = ""
    query: str = ""
    host: str = ""
    scheme: str = ""
    service: str = ""
    rpc_method: str = ""
    status: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0
    remote: str = ""
    local: str = ""
    upstream_host: str = ""
    upstream_local: str = ""
    upstream_server: str = ""
    forwarded_by: str = ""
    cluster: str = ""
    agent: AgentIdentity | None = None
    flag: str = ""
    flags: int = 0
    route: str = ""
    virtual_host: str = ""
    attempts: int = 0
    waited: float = 0.0
    dialled: float = 0.0
    request_received: float | None = None
    response_received: float | None = None
    connection_id: int = 0
    upstream_connection_id: int = 0
    request_headers: Lookup | None = None
    response_headers: Lookup | None = None
    trace_id: str = ""
