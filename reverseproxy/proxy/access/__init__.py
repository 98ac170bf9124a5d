"""
Access logs: one line for each request or session.

C{record} says what is known of one, C{variables} what a format may say of that,
C{formats} makes functions of formats, and C{log} writes.
"""

from __future__ import annotations

__all__ = ["AccessLog", "AccessRecord"]

from reverseproxy.proxy.access.log import AccessLog
from reverseproxy.proxy.access.record import AccessRecord
