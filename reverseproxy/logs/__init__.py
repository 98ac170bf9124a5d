"""
Log lines that people and machines can read, on top of L{twisted.logger}.

L{make_observer} gives what L{twisted.logger.globalLogBeginner} wants.  The
text format is one line for each event::

    2026-07-14T12:00:00.123Z WARN  tunnel.server: refused 10.0.0.7:50000: ...

with the lines of a traceback indented below it.  The JSON format is one object
for each event, with C{time}, C{level}, C{namespace}, C{message} and every field
that was given to the logger.  Lines of a worker have its number: C{[2]} before
the namespace, or C{worker}.

Peers choose much of what is logged about them.  So control characters and
line breaks are escaped (nobody can forge a line or send escape sequences to a
terminal), lengths are bounded, fields that are named like secrets are not
written, and a L{Throttle} keeps a flood of bad peers from filling the disk; what
no throttle is for, L{reverseproxy.logs.bounds.LogBounds} bounds.
"""

from __future__ import annotations

__all__ = [
    "DEBUGGING",
    "DEFAULT_LEVEL",
    "LOG_PATH",
    "Debugging",
    "LeftOut",
    "LogFile",
    "LogObserver",
    "Throttle",
    "counted",
    "how_many",
    "escape",
    "format_time",
    "level_name",
    "loss",
    "make_observer",
    "parse_level",
    "said",
    "shorten",
]

from reverseproxy.logs.file import LogFile
from reverseproxy.logs.levels import DEBUGGING, DEFAULT_LEVEL, Debugging, level_name, parse_level
from reverseproxy.logs.observer import LOG_PATH, LogObserver, make_observer
from reverseproxy.logs.throttle import LeftOut, Throttle
from reverseproxy.logs.words import counted, escape, format_time, how_many, loss, said, shorten
