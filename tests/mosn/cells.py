"""The situations in which each end of ours meets a fake MOSN."""

from __future__ import annotations

__all__ = ["CLIENTS", "CONNECTIONS", "MODES", "PROTOCOLS", "SPARE", "TLS", "Cell", "cells"]

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

PROTOCOLS = ("Http1", "Http2", "bolt", "boltv2", "dubbo", "tcp")
TLS = ("plain", "tls", "mtls")
CONNECTIONS = (1, 8)
SPARE = 2
"""Connections of an agent for scenes that others would suffer from."""
CLIENTS = (1, 32)
MODES = {"own": (), "workers": ("--workers", "2"), "stock": ("--transport", "stock")}
"""Options of ours."""

_SIZES = (37, 0, 5000, 70_001, 11)
"""Bytes of bodies: small, none, more than MOSN writes at once, more than one HTTP/2 window, small again."""


class Cell(NamedTuple):
    """
    A situation.

    @ivar connections: of the agent.
    @ivar clients: how many ask at the same time.
    """

    protocol: str
    tls: str
    connections: int
    clients: int

    @property
    def name(self) -> str:
        return f"{self.protocol}_{self.tls}_{self.connections}_connections_{self.clients}_clients"

    @property
    def cluster(self) -> str:
        """The cluster that the agent joins, whatever the number of clients."""
        return f"{self.protocol}-{self.tls}-{self.connections}"

    def bodies(self, client: int) -> list[bytes]:
        """What a client sends, one after the other."""
        if self.protocol == "tcp":
            sizes = [_SIZES[(client + each) % 5] for each in range(4 if self.clients == 1 else 1)]
        elif self.clients == 1:
            sizes = list(_SIZES) * (1 if self.connections == 1 else 2)
        else:
            sizes = [_SIZES[(client + each) % 5] for each in range(3)]
        texts = (f"{self.name}, client {client}, request {number};" for number in range(len(sizes)))
        return [
            (text.encode() * (size // len(text) + 1))[:size] for text, size in zip(texts, sizes, strict=True)
        ]


def cells() -> Iterator[Cell]:
    for values in product(PROTOCOLS, TLS, CONNECTIONS, CLIENTS):
        yield Cell(*values)
