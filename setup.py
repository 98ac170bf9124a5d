"""
Compiles the modules of the hot path, if asked to: see docs/operations.rst.

Everything else about the package stands in setup.cfg.  The modules work as they
are; mypyc makes C extensions of them, which do the same in less time, and Python
prefers those.  The list has what a profile shows and mypyc can do: modules of
plain classes, without bases of Twisted's and without interfaces.
"""

import os

from setuptools import setup

MODULES = [
    "reverseproxy/proxy/http/attempts.py",
    "reverseproxy/proxy/http/exchange.py",
    "reverseproxy/proxy/http/mirror.py",
    "reverseproxy/proxy/rpc/exchange.py",
    "reverseproxy/routing/facts.py",
    "reverseproxy/routing/hosts.py",
    "reverseproxy/routing/matching.py",
    "reverseproxy/routing/results.py",
    "reverseproxy/routing/table.py",
    "reverseproxy/routing/timeouts.py",
    "reverseproxy/wire/http1/requests.py",
    "reverseproxy/wire/http1/chunked.py",
    "reverseproxy/wire/http1/fields.py",
    "reverseproxy/wire/http1/parser.py",
    "reverseproxy/wire/http1/response_chunked.py",
    "reverseproxy/wire/http1/responses.py",
    "reverseproxy/wire/yamux/session.py",
    "reverseproxy/wire/yamux/events.py",
    "reverseproxy/wire/yamux/frames.py",
    "reverseproxy/wire/yamux/outbound.py",
    "reverseproxy/wire/window.py",
]


def extensions() -> list:
    """What to compile: nothing, unless REVERSEPROXY_COMPILE is set."""
    if os.environ.get("REVERSEPROXY_COMPILE", "") in ("", "0"):
        return []
    from mypyc.build import mypycify  # of the extra "compile"

    return mypycify(MODULES, opt_level="3", debug_level="0")


setup(ext_modules=extensions())
