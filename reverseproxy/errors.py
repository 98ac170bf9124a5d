"""
The exceptions of the project.

Every error that a caller may want to distinguish has a class here; its message says what was
wrong and, if there is one, the remedy.
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
    "OptionsError",
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
    "VersionMismatch",
    "WireError",
]

from typing import Final

from reverseproxy.problems import Problem

BRIEF: Final = 3
"""The number of problems in one line."""


class ReverseProxyError(Exception):
    """The base class of all errors of this project."""


class ConfigError(ReverseProxyError):
    """
    A configuration is invalid.

    @ivar problems: all of its problems, in document order.
    @ivar warnings: warnings, which may explain a problem.
    """

    def __init__(self, *problems: Problem, warnings: tuple[Problem, ...] = ()) -> None:
        self.problems = problems
        self.warnings = warnings
        super().__init__("\n".join(str(problem) for problem in problems))

    @property
    def brief(self) -> str:
        """The first problems in one line, for the log."""
        first = "; ".join(str(problem) for problem in self.problems[:BRIEF])
        more = len(self.problems) - BRIEF
        return f"{first}; and {more} more" if more > 0 else first


class OptionsError(ConfigError, ValueError):
    """
    The options of a plug-in, or a file that they name, can't be used.

    It is a L{ValueError}, too, as the interfaces of plug-ins demand.
    """


class PluginUnknown(ReverseProxyError, ValueError):
    """A configuration names an unknown plug-in."""


class WireError(ReverseProxyError):
    """A peer has violated its protocol."""


class FrameError(WireError):
    """Bytes from a tunnel peer are not a valid tunnel frame."""


class FrameTooLarge(WireError):
    """A tunnel frame to be sent exceeds its 16-bit length."""


class RpcFrameError(WireError):
    """Bytes from an RPC peer are not a frame of its protocol; the data after them can't be parsed either."""


class RpcHeaderError(WireError):
    """The headers of an RPC request are invalid; the connection stays usable."""


class HttpError(WireError):
    """
    An HTTP/1 message is malformed or over a limit.

    @ivar status: the HTTP status of the response, such as 400 or 431.
    @ivar head_request: whether it is a request that has the method HEAD, so that the response has no body.
    @ivar grpc: whether it is a call of gRPC.
    """

    head_request = False
    grpc = False

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


class ForeignAnswer(HttpError):
    """The response of a host is not HTTP/1 at all, so the host can't have understood the request."""


class Http2Error(WireError):
    """
    A peer has violated HTTP/2, and its connection ends.

    @ivar code: the error code for GOAWAY; see L{reverseproxy.wire.http2.frames.ErrorCode}.
    """

    def __init__(self, code: int, message: str) -> None:
        self.code = code
        super().__init__(message)


class MuxError(WireError):
    """
    A peer has violated yamux, and its connection ends.

    @ivar code: the code for our GoAway; see L{reverseproxy.wire.yamux.events.GoAwayCode}.
    @ivar events: the events before the violation, in the same data.
    """

    def __init__(self, message: str, code: int = 1) -> None:
        self.code = code
        self.events: tuple[object, ...] = ()
        super().__init__(message)


class VersionMismatch(ReverseProxyError):
    """The supervisor that has started a worker runs another version of this program."""


class NoMoreStreams(ReverseProxyError):
    """A multiplexed connection can't open another stream; another connection may."""


class HandshakeRefused(ReverseProxyError):
    """
    A tunnel server has answered the init frame with a failure status.

    @ivar status: the status as sent; see L{reverseproxy.wire.mosn.frames.Status}.
    """

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


class HandshakePostponed(HandshakeRefused):
    """
    A tunnel server is too busy to accept a connection now.

    @ivar retry_after: in how many seconds to retry.
    @ivar reason: the server's reason; may be empty.
    """

    def __init__(self, status: int, retry_after: float, reason: str = "") -> None:
        self.retry_after = retry_after
        self.reason = reason
        why = f": {reason}" if reason else ""
        super().__init__(status, f"the server asks to come back in {retry_after:g} s{why}")


class ServerLeaves(ReverseProxyError):
    """
    A tunnel server is leaving, and asks the agent to dial another connection.

    @ivar after: in how many seconds to dial it.
    """

    def __init__(self, after: float) -> None:
        self.after = after
        super().__init__(f"the server is about to leave, and asks for another connection in {after:g} s")


class TlsFailed(ReverseProxyError):
    """A TLS handshake has failed."""


class CertificateRejected(TlsFailed):
    """The certificate of a TLS peer is not trusted, or not valid for the expected name."""


class ConnectionUnavailable(ReverseProxyError):
    """A connection ended before it could be used."""


class ProtocolRefused(ConnectionUnavailable):
    """A host has chosen another protocol by ALPN than the requested one."""


class CredentialMissing(ReverseProxyError):
    """An agent's credential is missing; the message says where it was looked for."""


class HostGone(ReverseProxyError):
    """The connection of a host is closed, or already leased."""


class PickFailed(ReverseProxyError):
    """
    No host of a cluster is available for a request.

    @cvar status: the HTTP status of the proxy's own response.
    """

    status = 502


class NoHealthyHost(PickFailed):
    """The cluster has no usable host."""

    status = 502


class QueueFull(PickFailed):
    """All hosts are busy, and the queue of waiting requests is full."""

    status = 503


class QueueTimeout(PickFailed):
    """All hosts stayed busy until the timeout of the queue."""

    status = 503


class NoHostCame(QueueTimeout):
    """The cluster has no host, and none joined until the timeout of the queue."""


class ClusterUnknown(PickFailed):
    """A route names an unknown cluster."""

    status = 404
