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
    "reverseproxy/proxy/attempts.py",
    "reverseproxy/proxy/exchange.py",
    "reverseproxy/proxy/mirror.py",
    "reverseproxy/proxy/rpc_exchange.py",
    "reverseproxy/routing/facts.py",
    "reverseproxy/routing/hosts.py",
    "reverseproxy/routing/matching.py",
    "reverseproxy/routing/results.py",
    "reverseproxy/routing/table.py",
    "reverseproxy/routing/timeouts.py",
    "reverseproxy/wire/http1.py",
    "reverseproxy/wire/http1_chunks.py",
    "reverseproxy/wire/http1_headers.py",
    "reverseproxy/wire/http1_parser.py",
    "reverseproxy/wire/http1_response_chunks.py",
    "reverseproxy/wire/http1_responses.py",
    "reverseproxy/wire/mux.py",
    "reverseproxy/wire/mux_events.py",
    "reverseproxy/wire/mux_frames.py",
    "reverseproxy/wire/mux_output.py",
    "reverseproxy/wire/window.py",
]


def extensions() -> list:
    """What to compile: nothing, unless REVERSEPROXY_COMPILE is set."""
    if os.environ.get("REVERSEPROXY_COMPILE", "") in ("", "0"):
        return []
    from mypyc.build import mypycify  # of the extra "compile"

    return mypycify(MODULES, opt_level="3", debug_level="0")


setup(ext_modules=extensions())
