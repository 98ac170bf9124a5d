"""
Tunnels in memory, for tests of what goes through them.

A L{MemoryReactor} has a clock that moves when it is told to, and connections
that need no sockets.  Whatever takes a reactor takes it: L{run} makes a whole
process of a configuration, and two of them that share one are an agent and its
server.  L{mux_pair} makes the two ends of a connection that carries streams::

    reactor = MemoryReactor()
    server = run(server_document, reactor)
    agent = run(agent_document, reactor)
    client = reactor.dial("127.0.0.1", 2045, Recorder())
    client.transport.write(b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
    reactor.settle()
    assert b"200 OK" in client.data

Nothing happens by itself: L{MemoryReactor.settle} lets everything happen that
can happen now, and C{advance} lets time pass.  There is no name resolution; use
IP addresses.
"""

from __future__ import annotations

__all__ = ["MemoryReactor", "MemoryTransport", "Recorder", "join", "make_pair", "mux_pair", "run"]

from reverseproxy.testing.reactor import MemoryReactor
from reverseproxy.testing.running import mux_pair, run
from reverseproxy.testing.transport import MemoryTransport, Recorder, join, make_pair
