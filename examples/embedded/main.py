"""
A program of its own with reverse tunnels inside.

Run it with the names of configuration files, one for each proxy:

    python examples/embedded/main.py examples/plain/server.json

Several proxies in one process have nothing in common but its memory, its
descriptors, and whatever their files name twice.
"""

import sys

from twisted.internet import reactor
from twisted.logger import Logger, globalLogBeginner, textFileLogObserver

from reverseproxy import ConfigError, Proxy, fast_reactor
from reverseproxy.clock import use_monotonic_time

log = Logger()


def tell(event):
    """Say who comes and goes."""
    log.info("{event.kind}: {event.identity} at {event.host} for {event.cluster}", event=event)


def main(files):
    """Run what each file describes, until the process is told to stop."""
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)])
    # Set or not, the wall clock is no matter then.
    use_monotonic_time(reactor)
    try:
        for file in files:
            proxy = Proxy.from_file(file, fast_reactor(reactor))
            proxy.on_event(tell)
            proxy.start()
            # Requests under way are finished.
            reactor.addSystemEventTrigger("before", "shutdown", proxy.stop)
    except ConfigError as error:
        sys.exit(str(error))
    reactor.run()


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1:])
