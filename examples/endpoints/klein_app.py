"""
A Klein application that has no port: it listens through a tunnel server.

    python examples/endpoints/klein_app.py tunnel:127.0.0.1:9999:cluster=klein

Any other string of Twisted's endpoints will do as well, such as tcp:8080.
"""

import sys

from klein import Klein
from twisted.application.internet import StreamServerEndpointService
from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.logger import globalLogBeginner, textFileLogObserver
from twisted.web.server import Site

app = Klein()


@app.route("/greet/<name>")
def greet(request, name):
    """Say hello."""
    return f"hello {name}\n"


def main(where):
    """Listen until the process is told to stop, and finish the requests that are under way then."""
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)])
    service = StreamServerEndpointService(serverFromString(reactor, where), Site(app.resource()))
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
