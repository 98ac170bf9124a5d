"""Multiplexed connections: frames, states, windows, turns and bounds."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.wire.mux import Data, Ended, Mux, Opened


class GoldenTests(SynchronousTestCase):
    """Frames, byte by byte, as in yamux's specification."""

    def test_syn_rides_on_data(self) -> None:
        mux = Mux(True)
        stream = mux.open()
        mux.send(stream, b"hello")
        self.assertEqual(stream, 1)
        self.assertEqual(mux.take(), bytes.fromhex("00 00 0001 00000001 00000005") + b"hello")

    def test_a_stream_both_ways(self) -> None:
        client, server = Mux(True), Mux(False)
        stream = client.open()
        client.send(stream, b"ask")
        client.end(stream)
        events = server.feed(client.take())
        self.assertEqual([type(e) for e in events], [Opened, Data, Ended])
        server.send(stream, b"answer")
        server.end(stream)
        data = server.take()
        self.assertEqual(data, bytes.fromhex("00 00 0006 00000001 00000006") + b"answer")
        self.assertEqual([type(e) for e in client.feed(data)], [Data, Ended])
        server.consumed(stream, 3, 0.0)
        client.consumed(stream, 6, 0.0)
        self.assertEqual((client.streams, server.streams), (0, 0))
