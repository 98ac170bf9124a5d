"""
Tunnels as Twisted has them: endpoints.

A program that listens at an endpoint listens through a tunnel server with
L{TunnelServerEndpoint}: it has no port, and no file.  One that connects to an
endpoint reaches whoever serves a cluster of this process with
L{ClusterEndpoint}.  Both have strings, for
L{serverFromString<twisted.internet.endpoints.serverFromString>} and
L{clientFromString<twisted.internet.endpoints.clientFromString>}; see
C{docs/endpoints.rst}.
"""

from __future__ import annotations

__all__ = ["ClusterAddress", "ClusterEndpoint", "TunnelAddress", "TunnelPort", "TunnelServerEndpoint"]

from reverseproxy.endpoints.addresses import ClusterAddress, TunnelAddress
from reverseproxy.endpoints.client import ClusterEndpoint
from reverseproxy.endpoints.server import TunnelPort, TunnelServerEndpoint
