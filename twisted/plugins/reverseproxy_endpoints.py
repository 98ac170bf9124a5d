"""Register C{tunnel:} among Twisted's endpoint strings."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import (
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpointStringParser,
)
from twisted.plugin import IPlugin
from zope.interface import implementer

# Every program that uses a string of any kind imports this: what is large is imported when it is needed.


@implementer(IPlugin, IStreamServerEndpointStringParser)
class _ServerParser:
    """Listen through a tunnel server."""

    prefix = "tunnel"

    def parseStreamServer(self, reactor: Any, *args: str, **kwargs: str) -> Any:  # noqa: N802
        """See L{IStreamServerEndpointStringParser}."""
        from reverseproxy.endpoints.strings import parse_server

        return parse_server(reactor, args, kwargs)


@implementer(IPlugin, IStreamClientEndpointStringParserWithReactor)
class _ClientParser:
    """Connect to a cluster of this process."""

    prefix = "tunnel"

    def parseStreamClient(self, reactor: Any, *args: str, **kwargs: str) -> Any:  # noqa: N802
        """See L{IStreamClientEndpointStringParserWithReactor}."""
        from reverseproxy.endpoints.strings import parse_client

        return parse_client(args, kwargs)


tunnel_server = _ServerParser()
tunnel_client = _ClientParser()
