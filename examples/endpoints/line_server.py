"""
A server of lines, whose clients are anywhere and which has no port.

    python examples/endpoints/line_server.py tunnel:127.0.0.1:9999:cluster=lines

Each line comes back turned round; "quit" ends the connection.
"""

import sys

from twisted.application.internet import StreamServerEndpointService
from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory
from twisted.logger import globalLogBeginner, textFileLogObserver
from twisted.protocols.basic import LineOnlyReceiver


class Turn(LineOnlyReceiver):
    """One client."""

    def connectionMade(self):
        """Say from where the connection comes: that is the tunnel server."""
        self.sendLine(b"you come by way of %s" % self.transport.getPeer().host.encode())

    def lineReceived(self, line):
        """Turn a line round."""
        if line == b"quit":
            self.transport.loseConnection()
        else:
            self.sendLine(line[::-1])


def main(where):
    """Listen until the process is told to stop, and wait for clients to finish then."""
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)])
    service = StreamServerEndpointService(serverFromString(reactor, where), Factory.forProtocol(Turn))
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        main(sys.argv[1])
    except ValueError as error:
        sys.exit(f"{sys.argv[1]}: {error}")
