"""Records of a fleet: each is read as it was written, and a malformed one only affects itself."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.fleet.record_fields import MAX_RECORD, BadRecord
from reverseproxy.fleet.records import HostKey, HostRecord, ServerRecord, agent_key, is_server_id
from reverseproxy.identity import AgentIdentity, CertificateSubject, shown_agent_id

KEY = HostKey("orders", "0" * 32, "alpha")
IDENTITY = AgentIdentity(
    "shop",
    "static",
    CertificateSubject("k", "CN=shop", ("DNS:shop",)),
    "host-1",
    shown_agent_id("secret-id"),
    1,
)


class ServerRecordTests(SynchronousTestCase):
    """Records of servers."""

    def test_round_trip(self) -> None:
        record = ServerRecord("alpha", "[::1]:7000", "1.2", "abc", "def", True, (1, 2), ("a:1", "[::1]:2"))
        self.assertEqual(ServerRecord.decode("alpha", record.encode()), record)

    def test_later_versions_may_say_more(self) -> None:
        data = b'{"v": 7, "address": "a:1", "moon": {"phase": 3}}'
        self.assertEqual(ServerRecord.decode("alpha", data), ServerRecord("alpha", "a:1"))

    def test_bad_records(self) -> None:
        for data, problem in [
            (b"", "not a JSON object"),
            (b"[]", "not a JSON object"),
            (b"[" * 5000, "not a JSON object"),
            (b"\xff", "not a JSON object"),
            (b'{"v": 1}', "host:port"),
            (b'{"v": 0, "address": "a:1"}', "v: "),
            (b'{"v": true, "address": "a:1"}', "v: "),
            (b'{"v": 1, "address": 3}', "address: is int"),
            (b'{"v": 1, "address": "a:0"}', "host:port"),
            (b'{"v": 1, "address": "a:99999999999999999"}', "host:port"),
            (b'{"v": 1, "address": "a\\nb:1"}', "printable"),
            (b'{"v": 1, "address": "' + b"a" * 300 + b':1"}', "address: has 302"),
            (b'{"v": 1, "address": "a:1", "draining": 1}', "draining: "),
            (b'{"v": 1, "address": "a:1", "protocols": 1}', "protocols: "),
            (b'{"v": 1, "address": "a:1", "protocols": ["1"]}', "protocols: "),
            (b'{"v": 1, "address": "a:1", "version": null}', "version: "),
            (b" " * (MAX_RECORD + 1), "bytes"),
        ]:
            error = self.assertRaises(BadRecord, ServerRecord.decode, "alpha", data)
            self.assertIn(problem, str(error))
            self.assertLess(len(str(error)), 200)

    def test_ids(self) -> None:
        for good in ("a", "server-1.example_net", "A" * 64):
            self.assertTrue(is_server_id(good))
        for bad in ("", "-a", "a/b", "a b", "é", "A" * 65, "a\n"):
            self.assertFalse(is_server_id(bad))
            self.assertRaises(BadRecord, ServerRecord.decode, bad, b'{"v": 1, "address": "a:1"}')


class HostRecordTests(SynchronousTestCase):
    """Records of hosts."""

    def test_round_trip(self) -> None:
        record = HostRecord(
            *KEY, "host-1", 5, 3, {"zone": "é"}, AgentIdentity("n", "p"), "plain", True, False, "0d1c8e6b"
        )
        self.assertEqual(HostRecord.decode(KEY, record.encode()), record)
        self.assertEqual(record.capacity, 3)

    def test_defaults_are_left_out(self) -> None:
        record = HostRecord(*KEY)
        self.assertEqual(json.loads(record.encode()), {"v": 1, "weight": 1, "connections": 1})
        self.assertEqual(HostRecord.decode(KEY, record.encode()), record)
        self.assertIs(record.capacity, None)

    def test_nobody_reads_an_agents_id(self) -> None:
        """
        Whoever knows it may close the agent's connections.

        What an identity has instead is the same at all servers: by that an agent is kept out at any of them.
        """
        record = HostRecord(*KEY, identity=IDENTITY)
        self.assertNotIn(b"secret-id", record.encode())
        found = HostRecord.decode(KEY, record.encode()).identity
        assert found is not None
        self.assertEqual(found.certificate, IDENTITY.certificate)
        self.assertEqual(found.agent_id, shown_agent_id("secret-id"))
        self.assertEqual(found.principal, IDENTITY.principal)
        key = agent_key(IDENTITY, "host-1", "127.0.0.1", 1, {}, "streams")
        self.assertNotIn("secret", key)

    def test_bad_records(self) -> None:
        def bad(problem: str, **fields: Any) -> None:
            data = json.dumps({"v": 1, **fields}).encode()
            self.assertIn(problem, str(self.assertRaises(BadRecord, HostRecord.decode, KEY, data)))

        for weight in (0, 129, "3", 1.5, True, None):
            bad("weight: ", weight=weight)
        bad("connections: ", connections=0)
        bad("mode: ", mode="fast")
        bad("metadata: ", metadata=[])
        bad("metadata: ", metadata={"a": 1})
        bad("metadata: ", metadata={"a": "b" * 257})
        bad("metadata: ", metadata={str(n): "" for n in range(33)})
        bad("hostname: ", hostname="a\nb")
        bad("identity: ", identity="me")
        bad("identity.name: ", identity={"name": 3})
        bad("identity.certificate.names: ", identity={"certificate": {"names": [1]}})
        bad("identity.certificate.names: ", identity={"certificate": {"names": ["a"] * 17}})
        bad("well: ", well="yes")

    def test_bad_keys(self) -> None:
        data = HostRecord(*KEY).encode()
        for key in (
            KEY._replace(cluster=""),
            KEY._replace(cluster="c" * 257),
            KEY._replace(agent="x"),
            KEY._replace(server="a/b"),
        ):
            self.assertRaises(BadRecord, HostRecord.decode, key, data)

    @given(st.binary(max_size=200) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(repr))
    def test_anything_is_read_or_refused(self, data: bytes | str) -> None:
        raw = data if isinstance(data, bytes) else data.encode()
        self.assertRaises(BadRecord, HostRecord.decode, KEY, raw)

    @given(
        st.dictionaries(
            st.sampled_from(
                ["v", "weight", "connections", "metadata", "identity", "mode", "well", "hostname"]
            ),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
                lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            ),
        )
    )
    def test_objects_are_read_or_refused(self, value: dict[str, Any]) -> None:
        try:
            record = replace(HostRecord.decode(KEY, json.dumps(value).encode()), identity=None)
        except BadRecord:
            return
        self.assertEqual(HostRecord.decode(KEY, record.encode()), record)


class AgentKeyTests(SynchronousTestCase):
    """What tells agents apart."""

    def test_same_everywhere(self) -> None:
        """An agent of ours is the same wherever it comes from, in whatever order it says its labels."""
        one = agent_key(IDENTITY, "h", "10.0.0.1", 1, {"a": "1", "b": "2"}, "streams")
        two = agent_key(IDENTITY, "h", "10.0.0.9", 1, {"b": "2", "a": "1"}, "streams")
        self.assertEqual(one, two)
        HostRecord.decode(KEY._replace(agent=one), HostRecord(*KEY).encode())

    def test_told_apart(self) -> None:
        plain = ("h", "10.0.0.1", 1, {}, "plain")
        keys = {
            agent_key(None, *plain),
            agent_key(None, "h", "10.0.0.2", 1, {}, "plain"),
            agent_key(None, "other", "10.0.0.1", 1, {}, "plain"),
            agent_key(None, "h", "10.0.0.1", 2, {}, "plain"),
            agent_key(None, "h", "10.0.0.1", 1, {"a": ""}, "plain"),
            agent_key(None, "h", "10.0.0.1", 1, {}, "streams"),
            agent_key(AgentIdentity("me"), *plain),
            agent_key(AgentIdentity("", "me"), *plain),
            agent_key(AgentIdentity(agent_id="me"), *plain),
            agent_key(AgentIdentity(certificate=CertificateSubject("k")), *plain),
        }
        self.assertEqual(len(keys), 10)
