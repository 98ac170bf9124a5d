"""
A program of its own with reverse tunnels inside.

Run it with the names of configuration files, one for each application:

    python examples/embedded/main.py examples/plain/server.json

Several applications in one process have nothing in common but its memory, its
descriptors, and whatever their files name twice.
"""

import sys
from random import SystemRandom

from twisted.application.service import MultiService
from twisted.internet import reactor
from twisted.logger import globalLogBeginner, textFileLogObserver

from reverseproxy.app import ReverseProxy
from reverseproxy.clock import use_monotonic_time
from reverseproxy.config.loader import load
from reverseproxy.errors import ConfigError
from reverseproxy.transport import is_supported, with_streams


def main(files):
    """Run what each file describes, until the process is told to stop."""
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)])
    # Set or not, the wall clock is no matter then.
    use_monotonic_time(reactor)
    fast = with_streams(reactor) if is_supported(reactor) else reactor
    services = MultiService()
    try:
        for file in files:
            ReverseProxy(load(file).config, fast, SystemRandom(), file).setServiceParent(services)
        # Binds the ports.  With privileges to give up, call privilegedStartService first, which does that.
        services.startService()
    except ConfigError as error:
        sys.exit(str(error))
    # Requests under way are finished.
    reactor.addSystemEventTrigger("before", "shutdown", services.stopService)
    reactor.run()


if __name__ == "__main__":
    main(sys.argv[1:])
