"""What hosts learn of clients, and what is recorded of ended exchanges, in every version of HTTP."""

from __future__ import annotations

__all__ = ["default_host", "forwarded_by", "note_mistake", "record", "tell"]

from typing import TYPE_CHECKING

from twisted.logger import Logger

from reverseproxy.addresses import is_unix
from reverseproxy.config.models import Http1Options, Http2Options
from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.proxy.counting import count
from reverseproxy.wire.http.forwarded import ForwardedBy

if TYPE_CHECKING:
    from reverseproxy.proxy.http.exchange import Exchange
    from reverseproxy.proxy.http.settings import HttpSettings


def forwarded_by(options: Http1Options | Http2Options, info: ConnectionInfo) -> ForwardedBy | None:
    """Return what hosts learn about a client by C{X-Forwarded-...} and C{Via}; L{None} for nothing."""
    if not options.via and options.x_forwarded == "off":
        return None
    return ForwardedBy(options.via, options.x_forwarded, info.remote_ip, "https" if info.secure else "http")


def default_host(info: ConnectionInfo) -> bytes:
    """Return the authority for requests that name none: the address that the client connected to."""
    return b"localhost" if is_unix(info.local) else info.local.encode("ascii")


def record(settings: HttpSettings, exchange: Exchange) -> None:
    """Count an exchange that has ended, and report it to traces and the access log."""
    if settings.tally is not None:
        count(settings.tally, exchange, settings.clock.seconds())
    if settings.observed:
        tell(settings, exchange)


def tell(settings: HttpSettings, exchange: Exchange) -> None:
    """End the spans of an exchange that has ended, and write it to the access log."""
    if settings.tracing is not None:
        exchange.end_trace()
    if settings.access_log is not None:
        settings.access_log(exchange.record())


def note_mistake(log: Logger, settings: HttpSettings, info: ConnectionInfo, reason: str) -> None:
    """Log that a client violated its protocol, at a limited rate."""
    complaints = settings.complaints
    if complaints.allow():
        log.info(
            "{listener}: {peer} sent a bad request: {reason}{suppressed}",
            listener=settings.listener,
            peer=info.remote,
            reason=reason,
            suppressed=complaints.suppressed,
        )
