"""
A service that switches protocols: what docker's daemon and a Kubernetes API server do, as far as clients ask.

HTTP is spoken by h11, so that the project's own parsers have no part in judging
what it got.

Anything with C{Upgrade} is answered with 101, and what comes then is echoed, up
to an end, which is answered with how much came: unless the query says
C{decline=403}, or C{choose=} another protocol than the first.  The answer tells
in headers what the request was.
"""

from __future__ import annotations

__all__ = ["API_VERSION", "CONTAINER", "UpgradeHost"]

import json
import re
import struct
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import h11
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol as WebSocket
from websockets.protocol import Side
from websockets.utils import accept_key
from zope.interface import implementer

from tests.integration.spdy import FIN, SYN_STREAM, Spdy

CONTAINER = "c0ffee"
"""The one container that there is, and the one pod."""

API_VERSION = "1.48"
"""Of docker's interface; clients of other versions agree to this one, or say theirs in paths."""

_POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": CONTAINER, "namespace": "default"},
    "spec": {"containers": [{"name": "main", "image": "none"}]},
    "status": {"phase": "Running"},
}
_RESOURCES = {
    "kind": "APIResourceList",
    "groupVersion": "v1",
    "resources": [
        {
            "name": "pods",
            "singularName": "pod",
            "namespaced": True,
            "kind": "Pod",
            "verbs": ["get"],
            "shortNames": ["po"],
        },
        {
            "name": "pods/exec",
            "singularName": "",
            "namespaced": True,
            "kind": "PodExecOptions",
            "verbs": ["create", "get"],
        },
    ],
}
_SUCCESS = json.dumps({"metadata": {}, "status": "Success"}).encode()
_VERSION = {
    "ApiVersion": API_VERSION,
    "MinAPIVersion": "1.24",
    "Version": "28.0.0",
    "Os": "linux",
    "Arch": "amd64",
}


@implementer(IHalfCloseableProtocol)
class UpgradeHost(Protocol):
    """One connection; see the module's text."""

    def __init__(self) -> None:
        self._http = h11.Connection(h11.SERVER)
        self._request: Any = None
        self._body = b""
        self._session: Session | None = None

    def dataReceived(self, data: bytes) -> None:
        if self._session is not None:
            self._session.received(data)
            return
        self._http.receive_data(data)
        self._go_on()

    def _go_on(self) -> None:
        while True:
            if self._http.they_are_waiting_for_100_continue:
                self._send(h11.InformationalResponse(status_code=100, headers=[]))
            event = self._http.next_event()
            if event is h11.NEED_DATA or event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                return
            if isinstance(event, h11.Request):
                self._request, self._body = event, b""
            elif isinstance(event, h11.Data):
                self._body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                self._answer()
                if self._session is not None:
                    return
                if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
                    self._http.start_next_cycle()

    def _send(self, *events: Any) -> None:
        self.transport.write(b"".join(self._http.send(event) or b"" for event in events))

    def _reply(self, status: int, body: object, *headers: tuple[str, str]) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        fields = [("Content-Type", "application/json"), ("Content-Length", str(len(data))), *headers]
        events = [h11.Response(status_code=status, headers=fields), h11.Data(data=data), h11.EndOfMessage()]
        self._send(*events)

    def _header(self, name: bytes) -> str:
        return b",".join(value for field, value in self._request.headers if field == name).decode()

    def _answer(self) -> None:
        url = urlsplit(self._request.target.decode())
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        method = self._request.method.decode()
        path = re.sub(r"^/v1\.\d+(?=/)", "", url.path)
        offered = self._header(b"upgrade")
        if offered and "decline" in query:
            self._reply(int(query["decline"]), {"body": self._body.decode("latin-1")})
        elif path == f"/api/v1/namespaces/default/pods/{CONTAINER}/exec" and offered.lower() == "websocket":
            key = accept_key(self._header(b"sec-websocket-key"))
            accepted = [("Sec-WebSocket-Accept", key), ("Sec-WebSocket-Protocol", "v5.channel.k8s.io")]
            self._switch(lambda: WebSocketExec(self), "websocket", *accepted)
        elif path == f"/api/v1/namespaces/default/pods/{CONTAINER}/exec":
            self._switch(
                lambda: SpdyExec(self, query), "SPDY/3.1", ("X-Stream-Protocol-Version", "v4.channel.k8s.io")
            )
        elif path in ("/exec/e1/start", f"/containers/{CONTAINER}/attach"):
            raw = ("Content-Type", "application/vnd.docker.raw-stream")
            self._switch(lambda: DockerStream(self), "tcp", raw)
        elif offered:
            first = offered.split(",")[0].strip()
            about = [("X-Method", method), ("X-Body", self._body.decode("latin-1")), ("X-Offered", offered)]
            self._switch(lambda: Echo(self), query.get("choose", first), *about)
        else:
            self._answer_api(method, path)

    def _answer_api(self, method: str, path: str) -> None:
        """Say what clients ask for before they ask for an upgrade."""
        status = 200
        body: object = None
        match path:
            case "/_ping":
                self._reply(200, b"" if method == "HEAD" else b"OK", ("Api-Version", API_VERSION))
                return
            case "/version":
                body = _VERSION
            case "/info":
                body = {"ServerVersion": "28.0.0", "OSType": "linux"}
            case _ if path == f"/containers/{CONTAINER}/json":
                state = {"Running": True, "Status": "running", "ExitCode": 0}
                config = {"Tty": False, "OpenStdin": True, "AttachStdin": True, "Image": "none"}
                body = {"Id": CONTAINER, "Name": "/" + CONTAINER, "State": state, "Config": config}
                body |= {"HostConfig": {"LogConfig": {"Type": "none"}}}
            case _ if path == f"/containers/{CONTAINER}/exec":
                status, body = 201, {"Id": "e1"}
            case "/exec/e1/json":
                body = {"ID": "e1", "Running": False, "ExitCode": 7, "ContainerID": CONTAINER}
            case _ if path == f"/containers/{CONTAINER}/wait":
                body = {"StatusCode": 7}
            case "/api":
                body = {"kind": "APIVersions", "versions": ["v1"]}
            case "/apis":
                body = {"kind": "APIGroupList", "apiVersion": "v1", "groups": []}
            case "/api/v1":
                body = _RESOURCES
            case _ if path == f"/api/v1/namespaces/default/pods/{CONTAINER}":
                body = _POD
            case "/echo":
                body = {"method": method, "body": self._body.decode("latin-1")}
            case _:
                status, body = 404, {"message": f"no {path} here"}
        self._reply(status, body)

    def _switch(self, session: Callable[[], Session], protocol: str, *headers: tuple[str, str]) -> None:
        fields = [("Upgrade", protocol), ("Connection", "Upgrade"), *headers]
        self._send(h11.InformationalResponse(status_code=101, headers=fields, reason=b"UPGRADED"))
        rest, _ = self._http.trailing_data
        self._session = session()
        if rest:
            self._session.received(rest)

    def readConnectionLost(self) -> None:
        if self._session is not None:
            self._session.ended()
        else:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Nothing to do: we did it."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._session = None


class Session:
    """What is spoken behind a 101."""

    def __init__(self, host: UpgradeHost) -> None:
        self.transport: Any = host.transport
        self.size = 0

    def received(self, data: bytes) -> None:
        """The client has sent something."""
        raise NotImplementedError

    def ended(self) -> None:
        """The client sends no more."""
        self.transport.loseConnection()


class Echo(Session):
    """Echoes, and says in the end how much it was; C{quit} at the end of a read makes it end first."""

    def received(self, data: bytes) -> None:
        self.size += len(data)
        self.transport.write(data)
        if data.endswith(b"quit"):
            self.transport.loseWriteConnection()

    def ended(self) -> None:
        self.transport.write(b"|%d" % self.size)
        self.transport.loseConnection()


class DockerStream(Session):
    """Docker's frames for output and errors; input comes as it is."""

    def _write(self, kind: int, data: bytes) -> None:
        self.transport.write(struct.pack(">BxxxL", kind, len(data)) + data)

    def received(self, data: bytes) -> None:
        self.size += len(data)
        self._write(1, data)

    def ended(self) -> None:
        self._write(2, b"%d bytes of input\n" % self.size)
        super().ended()


class SpdyExec(Session):
    """What a kubelet does for C{exec}: C{cat}, with a line about it on standard error."""

    def __init__(self, host: UpgradeHost, query: dict[str, str]) -> None:
        super().__init__(host)
        self._spdy = Spdy()
        self._streams: dict[str, int] = {}
        self._wanted = {"error"} | {
            name for name in ("stdin", "stdout", "stderr") if query.get(name) == "true"
        }

    def received(self, data: bytes) -> None:
        for frame in self._spdy.feed(data):
            if frame.kind == SYN_STREAM:
                names = {name.lower(): value for name, value in frame.headers.items()}
                self._streams[names["streamtype"]] = frame.stream
                self.transport.write(self._spdy.accept(frame.stream))
                if "stdin" not in self._wanted and self._wanted == set(self._streams):
                    self._finish()
            elif frame.kind == 0 and frame.stream == self._streams.get("stdin"):
                self.size += len(frame.data)
                if frame.data:
                    self._write("stdout", frame.data)
                if frame.flags & FIN:
                    self._finish()

    def _write(self, name: str, data: bytes, flags: int = 0) -> None:
        if name in self._streams:
            self.transport.write(self._spdy.data(self._streams[name], data, flags))

    def _finish(self) -> None:
        self._write("stderr", b"%d bytes of input\n" % self.size)
        self._write("error", _SUCCESS, FIN)
        self._write("stdout", b"", FIN)
        self._write("stderr", b"", FIN)


class WebSocketExec(Session):
    """The same in messages of a WebSocket: their first byte says for which stream they are."""

    def __init__(self, host: UpgradeHost) -> None:
        super().__init__(host)
        self._frames = WebSocket(Side.SERVER)

    def received(self, data: bytes) -> None:
        self._frames.receive_data(data)
        for event in self._frames.events_received():
            if isinstance(event, Frame) and event.opcode is Opcode.BINARY:
                channel, text = event.data[0], event.data[1:]
                if channel == 0 and text:
                    self.size += len(text)
                    self._frames.send_binary(b"\1" + text)
                elif channel == 255:
                    self._frames.send_binary(b"\2%d bytes of input\n" % self.size)
                    self._frames.send_binary(b"\3" + _SUCCESS)
                    self._frames.send_close(1000)
        for piece in self._frames.data_to_send():
            if piece:
                self.transport.write(piece)
            else:
                self.transport.loseConnection()
