"""
The one exception tree of the project.

Every error that a caller may want to tell apart has a class here; each carries
a sentence that says what was wrong and, where there is something to do, what
to do next.
"""

from __future__ import annotations

__all__ = [
    "CertificateRejected",
    "ClusterUnknown",
    "ConfigError",
    "ConnectionUnavailable",
    "CredentialMissing",
    "ForeignAnswer",
    "FrameError",
    "FrameTooLarge",
    "HandshakeRefused",
    "HostGone",
    "Http2Error",
    "HttpError",
    "MuxError",
    "NoHealthyHost",
    "NoHostCame",
    "NoMoreStreams",
    "PickFailed",
    "PluginUnknown",
    "Problem",
    "ProtocolRefused",
    "QueueFull",
    "QueueTimeout",
    "ReverseProxyError",
    "RpcFrameError",
    "RpcHeaderError",
    "TlsFailed",
    "WireError",
]

from reverseproxy.problems import Problem


class ReverseProxyError(Exception):
    """Base of all errors raised by this project."""


class ConfigError(ReverseProxyError):
    """
    A configuration can't be used.

    @ivar problems: everything that is wrong with it, in document order.
    @ivar warnings: what else is noteworthy, and may be why it is wrong.
    """

    def __init__(self, *problems: Problem, warnings: tuple[Problem, ...] = ()) -> None:
        self.problems = problems
        self.warnings = warnings
        super().__init__("\n".join(str(problem) for problem in problems))


class PluginUnknown(ReverseProxyError, ValueError):
    """There is no plug-in of the name that a configuration has."""


class WireError(ReverseProxyError):
    """A peer sent bytes that its protocol does not allow."""


class FrameError(WireError):
    """Bytes from a tunnel peer are not a valid tunnel frame."""


class FrameTooLarge(WireError):
    """A tunnel frame that we were to send does not fit in its 16-bit length."""


class RpcFrameError(WireError):
    """Bytes from an RPC peer are not a frame of its protocol; nothing behind them can be understood."""


class RpcHeaderError(WireError):
    """The headers of an RPC request can't be read; the connection is good still."""


class HttpError(WireError):
    """
    An HTTP/1 message is malformed or over a limit.

    @ivar status: the HTTP status to answer with, such as 400 or 431.
    """

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


class ForeignAnswer(HttpError):
    """What a host has answered is no HTTP/1 at all: it can't have understood the request either."""


class Http2Error(WireError):
    """
    A peer broke the rules of its HTTP/2 connection, which ends with that.

    @ivar code: the error code for GOAWAY; see L{reverseproxy.wire.http2.frames.ErrorCode}.
    """

    def __init__(self, code: int, message: str) -> None:
        self.code = code
        super().__init__(message)


class MuxError(WireError):
    """
    A peer broke the rules of its multiplexed connection, which ends with that.

    @ivar code: the code for our GoAway; see L{reverseproxy.wire.yamux.events.GoAwayCode}.
    @ivar events: what came before, in order, in the bytes that were fed.
    """

    def __init__(self, message: str, code: int = 1) -> None:
        self.code = code
        self.events: tuple[object, ...] = ()
        super().__init__(message)


class NoMoreStreams(ReverseProxyError):
    """A multiplexed connection can't take one more stream; another connection may."""


class HandshakeRefused(ReverseProxyError):
    """
    A tunnel server answered the init frame with a failure status.

    @ivar status: the status as sent; see L{reverseproxy.wire.mosn.frames.Status}.
    """

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


class HandshakePostponed(HandshakeRefused):
    """
    A tunnel server has too much to do to accept a connection now.

    @ivar retry_after: in how many seconds it wants to be asked again.
    @ivar reason: why, if it says so.
    """

    def __init__(self, status: int, retry_after: float, reason: str = "") -> None:
        self.retry_after = retry_after
        self.reason = reason
        why = f": {reason}" if reason else ""
        super().__init__(status, f"the server asks to come back in {retry_after:g} s{why}")


class ServerLeaves(ReverseProxyError):
    """
    A tunnel server is about to leave, and asks for another connection.

    @ivar after: in how many seconds it is to be dialled.
    """

    def __init__(self, after: float) -> None:
        self.after = after
        super().__init__(f"the server is about to leave, and asks for another connection in {after:g} s")


class TlsFailed(ReverseProxyError):
    """A TLS handshake could not be completed."""


class CertificateRejected(TlsFailed):
    """A TLS peer's certificate is not trusted, or not for the name that we wanted to reach."""


class ConnectionUnavailable(ReverseProxyError):
    """A connection ended before it could be used."""


class ProtocolRefused(ConnectionUnavailable):
    """A host has agreed by ALPN to speak something else than was wanted of it."""


class CredentialMissing(ReverseProxyError):
    """An agent's credential can't be had now; the message says where it was looked for."""


class HostGone(ReverseProxyError):
    """A host's held connection is closed or already leased."""


class PickFailed(ReverseProxyError):
    """
    No host of a cluster could be given to a request.

    @cvar status: the HTTP status that a local reply carries for this reason.
    """

    status = 502


class NoHealthyHost(PickFailed):
    """The cluster has no host that may be used."""

    status = 502


class QueueFull(PickFailed):
    """All hosts are busy and the bounded queue of waiting requests is full."""

    status = 503


class QueueTimeout(PickFailed):
    """All hosts stayed busy for as long as a request may wait."""

    status = 503


class NoHostCame(QueueTimeout):
    """The cluster has no host, and none came for as long as a request may wait."""


class ClusterUnknown(PickFailed):
    """A route names a cluster that the configuration does not define."""

    status = 404
