"""A tunnel server, an agent, a service and a client, all in memory."""

from twisted.internet.protocol import Factory
from twisted.protocols.wire import Echo
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.testing import MemoryReactor, Recorder, run


def listener(name, address, filter_, bind_port=True):
    """Something that takes connections."""
    chain = {"filters": [filter_]}
    return {"name": name, "address": address, "bind_port": bind_port, "filter_chains": [chain]}


def relay(cluster):
    """Relay whatever comes to a cluster."""
    return {"type": "tcp_proxy", "config": {"cluster": cluster}}


SERVER = {
    "servers": [
        {
            "listeners": [
                listener("clients", "127.0.0.1:2022", relay("edge")),
                listener("tunnels", "127.0.0.1:9999", {"type": "tunnel"}),
            ]
        }
    ],
    "cluster_manager": {"clusters": [{"name": "edge"}]},
}

AGENT = {
    "servers": [{"listeners": [listener("hosting", "127.0.0.1:0", relay("service"), bind_port=False)]}],
    "cluster_manager": {"clusters": [{"name": "service", "hosts": [{"address": "127.0.0.1:22"}]}]},
    "extends": [
        {
            "type": "tunnel_agent",
            "config": {
                "enable": True,
                "connection_num": 1,
                "cluster": "edge",
                "hosting_listener": "hosting",
                "server_list": ["127.0.0.1:9999"],
            },
        }
    ],
}


class TunnelTests(SynchronousTestCase):
    """What a client hears of a service that it can't reach but through the tunnel."""

    def setUp(self):
        """Start all of it."""
        self.reactor = MemoryReactor()
        factory = Factory.forProtocol(Echo)
        factory.noisy = False
        self.reactor.listenTCP(22, factory, interface="127.0.0.1")
        self.server = run(SERVER, self.reactor)
        self.agent = run(AGENT, self.reactor)
        self.pass_time(1)

    def pass_time(self, seconds):
        """Let time pass."""
        for _ in range(int(seconds * 10)):
            self.reactor.advance(0.1)

    def talk(self, data):
        """Say something as a client, and hear the answer."""
        client = self.reactor.dial("127.0.0.1", 2022, Recorder())
        client.transport.write(data)
        self.pass_time(1)
        return bytes(client.data)

    def test_answer(self):
        """The service echoes."""
        self.assertEqual(self.talk(b"hello"), b"hello")

    def test_the_agent_leaves(self):
        """A client waits for it to come back."""
        self.agent.stopService()
        self.pass_time(5)
        client = self.reactor.dial("127.0.0.1", 2022, Recorder())
        client.transport.write(b"anybody?")
        self.pass_time(3)
        self.assertEqual(bytes(client.data), b"")
        self.agent = run(AGENT, self.reactor)
        self.pass_time(2)
        self.assertEqual(bytes(client.data), b"anybody?")
