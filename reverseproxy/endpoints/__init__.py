"""
Tunnels as Twisted endpoints.

With L{TunnelServerEndpoint} a program listens through tunnel servers: it binds no
port, and needs no configuration file.  With L{ClusterEndpoint} it connects to a host of
a cluster of this process.  Both have strings, for
L{serverFromString<twisted.internet.endpoints.serverFromString>} and
L{clientFromString<twisted.internet.endpoints.clientFromString>}; see
C{docs/endpoints.rst}.
"""

from __future__ import annotations

__all__ = ["ClusterAddress", "ClusterEndpoint", "TunnelAddress", "TunnelPort", "TunnelServerEndpoint"]

from reverseproxy.endpoints.addresses import ClusterAddress, TunnelAddress
from reverseproxy.endpoints.client import ClusterEndpoint
from reverseproxy.endpoints.server import TunnelPort, TunnelServerEndpoint
