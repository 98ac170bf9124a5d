"""
Private names of Twisted and pyOpenSSL that this project uses.

L{PRIVATE} lists all of them in C{reverseproxy/}.  Each is used because there is no public way, or
only a much slower one; and each has a test here of its expected behaviour, so that a release that
changes it is noticed.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import pkgutil
import socket
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

from OpenSSL import SSL
from twisted.application.app import AppLogger
from twisted.internet import tcp, unix
from twisted.internet.endpoints import _SystemdParser
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.haproxy._exceptions import InvalidProxyHeader
from twisted.protocols.haproxy._v1parser import V1Parser
from twisted.protocols.haproxy._v2parser import V2Parser
from twisted.python.failure import Failure
from twisted.python.systemd import ListenFDs
from twisted.scripts import _twistd_unix
from twisted.trial.unittest import SynchronousTestCase

import reverseproxy
from reverseproxy.logs.observer import _RUNNERS
from reverseproxy.tls import openssl
from tests.certs import Certificates

PRIVATE: Final[dict[str, str]] = {
    # Twisted's connections, which transport/ derives from
    "_tempDataLen": "what is unsent: a connection is handed on only without any (handing, backlog)",
    "_writeDisconnecting": "a half-close waits for what is unsent, and our doWrite brings it about (stream)",
    "_writeDisconnected": "our half is closed: likewise; such a connection is not handed on (handing)",
    "_closeWriteConnection": "closes our half, and tells the protocol: the end of our doWrite (stream)",
    "_aborting": "the connection is being reset: nothing is sent, nor handed on (stream, handing)",
    "_closeSocket": "the last moment of a port, in which who waits is still let in (ports)",
    "_makeTransport": "what a connector makes: the only way to dial with a connection of ours (stream)",
    "_fromConnectedSocket": "a connection from a descriptor: reactors have no place for ours (stream)",
    "_fromListeningDescriptor": "a port from a descriptor: likewise (ports)",
    # Twisted's other rooms
    "_sddaemon": "Twisted reads systemd's variables once, and removes them (service_manager)",
    "_SystemdParser": "has that",
    "twisted.protocols.haproxy._exceptions": "what the parsers raise",
    "twisted.protocols.haproxy._v1parser": "the public API of haproxy needs a connection (proxy_protocol)",
    "twisted.protocols.haproxy._v2parser": "likewise",
    "twisted.scripts._twistd_unix.UnixAppLogger": "the namespace of lines about twistd, left out (logs)",
    # pyOpenSSL: tls/openssl.py has why, and does without where one is missing
    "_lib": "OpenSSL's functions: pyOpenSSL's methods for data cost several times as much",
    "_ffi": "makes their buffers",
    "_ssl": "the connection that they are given",
    "_raise_ssl_error": "finds the exception for what they return",
    "_into_ssl": "the memory that a connection reads from",
    "_from_ssl": "the memory that it writes to",
}

THEIRS: Final = ("twisted", "OpenSSL")


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


@cache
def private_parts(cls: type) -> set[str]:
    """The private names that a class of theirs has or gives its objects."""
    names = {name for name in vars(cls) if is_private(name)}
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(cls)))):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            names.add(node.attr)
    return names


def named(node: ast.AST) -> Iterator[str]:
    """What a piece of code names that may be somebody's private part."""
    match node:
        case ast.Attribute(attr=name) | ast.FunctionDef(name=name):
            yield name
        case ast.Constant(value=str(name)) if name.isidentifier():
            yield name  # as for getattr


@cache
def names_in(cls: type) -> set[str]:
    """All names in a class of ours."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    return {name for node in ast.walk(tree) for name in named(node)}


def modules() -> Iterator[tuple[Any, ast.Module]]:
    for found in pkgutil.walk_packages(reverseproxy.__path__, "reverseproxy."):
        if not found.name.endswith("__main__"):
            module = importlib.import_module(found.name)
            yield module, ast.parse(Path(str(module.__file__)).read_text("utf-8"))


def of_classes(module: Any) -> set[str]:
    """Private parts of their classes that a module's classes use or take the place of."""
    found: set[str] = set()
    for cls in vars(module).values():
        if inspect.isclass(cls) and cls.__module__ == module.__name__:
            theirs = [base for base in cls.__mro__ if base.__module__.split(".")[0] in THEIRS]
            parts = set().union(*map(private_parts, theirs)) if theirs else set()
            for base in cls.__mro__ if parts else ():
                # Those that are mixed in, too.
                if base.__module__.split(".")[0] == reverseproxy.__name__:
                    found |= names_in(base) & parts
    return found


def of_imports(tree: ast.Module) -> set[str]:
    """Private modules and names that are imported from them."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in THEIRS:
            if any(map(is_private, (node.module or "").split("."))):
                found.add(str(node.module))
            found |= {alias.name for alias in node.names if is_private(alias.name)}
    return found


class ListTests(SynchronousTestCase):
    """L{PRIVATE} is complete, and has nothing too much."""

    def test_list(self) -> None:
        used: set[str] = set()
        named_here: set[str] = set()
        defined: set[str] = set()
        for module, tree in modules():
            used |= of_classes(module) | of_imports(tree)
            for node in ast.walk(tree):
                if isinstance(node, ast.Attribute) and is_private(node.attr):
                    (defined if isinstance(node.ctx, ast.Store) else named_here).add(node.attr)
                elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                    defined.add(node.name)
                elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    defined.add(node.id)
                elif isinstance(node, ast.Constant) and node.value in PRIVATE:
                    used.add(str(node.value))
        # Whatever is named and nobody here has made is somebody else's.
        used |= named_here - defined
        used |= set(PRIVATE) & named_here
        self.assertEqual(sorted(used), sorted(PRIVATE))
        self.assertEqual([name for name, why in PRIVATE.items() if not why], [])


class Recording(Protocol):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.got = b""

    def dataReceived(self, data: bytes) -> None:
        self.got += data


class Quiet:
    """A reactor in which nothing happens by itself."""

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **more: None


class ConnectionTests(SynchronousTestCase):
    """What is expected of Twisted's connections and ports."""

    def setUp(self) -> None:
        near, self.far = socket.socketpair()
        self.addCleanup(near.close)
        self.addCleanup(self.far.close)
        near.setblocking(False)
        self.protocol = Recording()
        self.transport: Any = tcp.Connection(near, self.protocol, reactor=Quiet())
        self.transport.connected = 1

    def test_unsent(self) -> None:
        """What was written counts until the reactor has it sent, in one of two places."""
        self.transport.write(b"abc")
        self.assertEqual(self.transport._tempDataLen, 3)
        self.assertEqual(len(self.transport.dataBuffer) - self.transport.offset, 0)
        self.transport.doWrite()
        self.assertEqual(self.transport._tempDataLen, 0)
        self.assertEqual(self.far.recv(9), b"abc")

    def test_half_close(self) -> None:
        self.assertFalse(self.transport._writeDisconnecting or self.transport._writeDisconnected)
        self.transport.loseWriteConnection()
        self.assertTrue(self.transport._writeDisconnecting)
        self.assertFalse(self.transport._writeDisconnected)
        self.transport.doWrite()
        self.assertTrue(self.transport._writeDisconnected)
        self.assertEqual(self.far.recv(9), b"")

    def test_close_of_our_half(self) -> None:
        self.transport._closeWriteConnection()
        self.assertEqual(self.far.recv(9), b"")
        self.far.send(b"still read")
        self.transport.doRead()
        self.assertEqual(self.protocol.got, b"still read")

    def test_abort(self) -> None:
        factory = Factory.forProtocol(Recording)
        transport: Any = unix.Server._fromConnectedSocket(self.transport.socket.fileno(), factory, Quiet())
        self.addCleanup(transport.socket.close)
        self.assertFalse(transport._aborting)
        transport.abortConnection()
        self.assertTrue(transport._aborting)

    def test_end_of_ports(self) -> None:
        """A port that is lost closes its socket there, and has it open before."""
        seen: list[int] = []

        class Port(tcp.Port):
            def _closeSocket(self, orderly: bool) -> None:
                seen.append(self.socket.fileno())
                super()._closeSocket(orderly)

        port: Any = Port(0, Factory(), interface="127.0.0.1", reactor=Quiet())
        port.startListening()
        handle = port.socket
        port.connectionLost(Failure(ConnectionDone()))
        self.assertGreater(seen[0], 0)
        self.assertEqual(handle.fileno(), -1)

    def test_connectors(self) -> None:
        """TCP's and those of Unix sockets dial with what they are told to make."""
        made = object()

        class Tcp(tcp.Connector):
            def _makeTransport(self) -> Any:
                return made

        class Unix(unix.Connector):
            def _makeTransport(self) -> Any:
                return made

        for connector in (
            Tcp("127.0.0.1", 1, Factory(), None, None, Quiet()),
            Unix("/nowhere", Factory(), None, Quiet(), False),
        ):
            connector.factory.startedConnecting = lambda _: None
            connector.connect()
            self.assertIs(connector.transport, made)

    def test_accepted_elsewhere(self) -> None:
        """A connection is made of a descriptor, which stays the caller's."""
        factory = Factory.forProtocol(Recording)
        descriptor = self.transport.socket.fileno()
        made: Any = unix.Server._fromConnectedSocket(descriptor, factory, Quiet())
        self.addCleanup(made.socket.close)
        self.assertNotEqual(made.socket.fileno(), descriptor)
        self.assertIsInstance(made.protocol, Recording)
        self.far.send(b"hello")
        made.doRead()
        self.assertEqual(made.protocol.got, b"hello")
        os.fstat(descriptor)

    def test_accepted_elsewhere_by_tcp(self) -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)
        far = socket.create_connection(listening.getsockname())
        self.addCleanup(far.close)
        near, _ = listening.accept()
        self.addCleanup(near.close)
        factory = Factory.forProtocol(Recording)
        made: Any = tcp.Server._fromConnectedSocket(near.fileno(), socket.AF_INET, factory, Quiet())
        self.addCleanup(made.socket.close)
        self.assertEqual(made.getPeer().port, far.getsockname()[1])
        self.assertIsInstance(made.protocol, Recording)

    def test_bound_elsewhere(self) -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)
        port: Any = tcp.Port._fromListeningDescriptor(
            Quiet(), listening.fileno(), socket.AF_INET, Factory.forProtocol(Recording)
        )
        port.startListening()
        self.addCleanup(port.socket.close)
        self.assertEqual(port.getHost().port, listening.getsockname()[1])
        self.assertNotEqual(port.fileno(), listening.fileno())

    def test_bound_elsewhere_to_a_file(self) -> None:
        path = f"/tmp/{os.getpid()}-{id(self)}.sock"
        listening = socket.socket(socket.AF_UNIX)
        self.addCleanup(listening.close)
        listening.bind(path)
        self.addCleanup(os.unlink, path)
        listening.listen()
        port: Any = unix.Port._fromListeningDescriptor(
            Quiet(), listening.fileno(), Factory.forProtocol(Recording)
        )
        port.startListening()
        self.addCleanup(port.socket.close)
        self.assertEqual(port.getHost().name, path.encode())


class RoomTests(SynchronousTestCase):
    """What is expected of other parts of Twisted."""

    def test_sockets_of_systemd(self) -> None:
        """Twisted keeps what it has found in the environment."""
        self.assertIsInstance(_SystemdParser._sddaemon, ListenFDs)

    def test_proxy_protocol(self) -> None:
        """Both parsers take a header in pieces, and give back what comes behind it."""
        first = V1Parser()
        self.assertEqual(first.feed(b"PROXY TCP4 192.0.2.1 "), (None, None))
        info, rest = first.feed(b"192.0.2.2 1 2\r\nrest")
        self.assertEqual((info.source.host, info.destination.port, rest), ("192.0.2.1", 2, b"rest"))
        header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\2\1\xc0\0\2\2\0\1\0\2"
        second = V2Parser()
        self.assertEqual(second.feed(header[:20]), (None, None))
        info, rest = second.feed(header[20:] + b"rest")
        self.assertEqual((info.source.host, info.destination.port, rest), ("192.0.2.1", 2, b"rest"))
        self.assertRaises(InvalidProxyHeader, V1Parser().feed, b"PROXY NONSENSE\r\n")

    def test_namespace_of_twistd(self) -> None:
        logger = _twistd_unix.UnixAppLogger
        self.assertTrue(issubclass(logger, AppLogger))
        self.assertIn(f"{logger.__module__}.{logger.__qualname__}", _RUNNERS)


class OpenSslTests(SynchronousTestCase):
    """What is expected of pyOpenSSL's connections."""

    def setUp(self) -> None:
        certs = Certificates(self.mktemp())
        server = SSL.Context(SSL.TLS_METHOD)
        config = certs.server_context()
        server.use_certificate_chain_file(config.cert_chain)
        server.use_privatekey_file(config.private_key)
        client = SSL.Context(SSL.TLS_METHOD)
        for context in (server, client):
            # After handshakes of newer versions the server has something more to say.
            context.set_max_proto_version(SSL.TLS1_2_VERSION)
        self.near: Any = SSL.Connection(server, None)
        self.near.set_accept_state()
        self.far: Any = SSL.Connection(client, None)
        self.far.set_connect_state()
        self.shake_hands()

    def shake_hands(self) -> None:
        for _ in range(4):
            for one, other in ((self.far, self.near), (self.near, self.far)):
                try:
                    one.do_handshake()
                except SSL.WantReadError:
                    """There is more to come."""
                try:
                    other.bio_write(one.bio_read(65536))
                except SSL.WantReadError:
                    """There is nothing to say."""

    def test_all_is_there(self) -> None:
        """Or else everything would go through pyOpenSSL's methods, at several times the price."""
        self.assertTrue(openssl.serves(self.near))

    def test_data(self) -> None:
        """OpenSSL's functions and pyOpenSSL's methods do the same with a connection."""
        self.assertEqual(openssl.write(self.near._ssl, b"hello", 5), 5)
        size = openssl.bio_read(self.near._from_ssl, openssl.OUTPUT, openssl.FETCHED)
        self.far.bio_write(openssl.OUTPUT_VIEW[:size].tobytes())
        self.assertEqual(self.far.recv(9), b"hello")
        self.far.send(b"and back")
        encrypted = self.far.bio_read(65536)
        self.assertEqual(openssl.bio_write(self.near._into_ssl, encrypted, len(encrypted)), len(encrypted))
        size = openssl.read(self.near._ssl, openssl.PLAIN, openssl.RECORD)
        self.assertEqual(openssl.PLAIN_VIEW[:size].tobytes(), b"and back")

    def test_errors(self) -> None:
        """The exception is the one that pyOpenSSL's methods raise."""
        result = openssl.read(self.near._ssl, openssl.PLAIN, openssl.RECORD)
        self.assertEqual(openssl.get_error(self.near._ssl, result), openssl.WANT_READ)
        self.assertRaises(SSL.WantReadError, openssl.raise_error, self.near, result)
