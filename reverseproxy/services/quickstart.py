"""
C{twistd reverseproxy --quickstart}: everything in one process, to try it out.

A client listener, a tunnel server, an agent, and a hosting listener that
answers by itself: what C{quickstart.json} beside this file describes.
"""

from __future__ import annotations

__all__ = ["FILE", "announce", "load"]

import json
import socket
from importlib.resources import files
from typing import TYPE_CHECKING, Any, TextIO

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from reverseproxy.addresses import split_host_port
from reverseproxy.config.loader import Loaded, loads

if TYPE_CHECKING:
    from reverseproxy.app import ReverseProxy

FILE = "quickstart.json"
CLIENT_LISTENER = "client_listener"
TUNNEL_LISTENER = "tunnel_server_listener"


def _free(address: str) -> str:
    """Keep an address if it can be bound, else let the kernel choose another port."""
    host, port = split_host_port(address)
    for number in (port, 0):
        with socket.socket() as attempt:
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                attempt.bind((host, number))
            except OSError:
                continue
            return f"{host}:{attempt.getsockname()[1]}"
    return address


def load() -> Loaded:
    """
    Load the quickstart's configuration.

    Where one of its ports is taken, another one takes its place, so that
    trying this out never fails because of another server.
    """
    resource = files("reverseproxy.services") / FILE
    document: dict[str, Any] = json.loads(resource.read_text("utf-8"))
    for listener in document["servers"][0]["listeners"]:
        if listener["bind_port"]:
            listener["address"] = _free(listener["address"])
        if listener["name"] == TUNNEL_LISTENER:
            document["extends"][0]["config"]["server_list"] = [listener["address"]]
    return loads(json.dumps(document), FILE)


def announce(service: ReverseProxy, clock: IReactorTime, stream: TextIO) -> None:
    """
    Say what to try, once it works: when the agent's connections are hosts.

    @param stream: where to; not the log, which may be a file.
    """
    address = service.listeners[CLIENT_LISTENER].bound

    def look() -> None:
        if any(cluster.hosts for cluster in service.clusters):
            waiting.stop()
            stream.write(
                f"\nTry it:  curl http://{address}/\n"
                "The answer comes through the tunnel. Stop with Ctrl-C.\n\n"
            )
            stream.flush()

    waiting = LoopingCall(look)
    waiting.clock = clock
    waiting.start(0.05)
