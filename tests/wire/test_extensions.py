"""Tests for L{reverseproxy.wire.mosn.extensions}."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.wire.mosn.extensions import (
    MAX_AGENT_LENGTH,
    MAX_METADATA_ENTRIES,
    MAX_MUX_ENTRIES,
    MAX_MUX_WINDOW,
    MAX_RETRY_AFTER,
    MAX_TEXT_LENGTH,
    MAX_WORKERS,
    MIN_MUX_WINDOW,
    YAMUX,
    Announcement,
    CloseProof,
    ServerAnnouncement,
)

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "reverseproxy",
                    "version",
                    "agent",
                    "local_address",
                    "metadata",
                    "credential",
                    "mux",
                    "speaks",
                ]
            )
            | st.text(),
            inner,
            max_size=6,
        )
    ),
)


def ours(**members: Any) -> dict[str, Any]:
    return {"other": 1, "reverseproxy": members}


class AnnouncementTests(SynchronousTestCase):
    def test_what_is_told_of_services(self) -> None:
        """Only what says so plainly counts, and what does not say so is as it was."""
        for name, make, read in (
            ("tells", lambda said: Announcement("a1", tells=said), Announcement.from_extra),
            ("marks", lambda said: Announcement("a1", marks=said), Announcement.from_extra),
            ("tells", lambda said: ServerAnnouncement(tells=said), ServerAnnouncement.from_extra),
            ("marks", lambda said: ServerAnnouncement(marks=said), ServerAnnouncement.from_extra),
        ):
            self.assertNotIn(name, make(False).to_extra()["reverseproxy"])
            self.assertIs(make(True).to_extra()["reverseproxy"][name], True)
            for value in (True, False, 1, "true", None, [True]):
                extra = make(False).to_extra()
                extra["reverseproxy"][name] = value
                found = read(extra)
                assert found is not None
                self.assertIs(getattr(found, name), value is True)

    def test_workers(self) -> None:
        self.assertNotIn("workers", ServerAnnouncement(mux="yamux").to_extra()["reverseproxy"])
        sent = ServerAnnouncement(mux="yamux", workers=MAX_WORKERS)
        self.assertEqual(ServerAnnouncement.from_extra(sent.to_extra()), sent)
        for value in (-1, MAX_WORKERS + 1, True, 2.0, "4", None, [4], {}, 10**30):
            found = ServerAnnouncement.from_extra(ours(version=1, mux="yamux", workers=value))
            assert found is not None, value
            self.assertEqual((found.workers, found.mux), (0, "yamux"))
        for number in (-1, MAX_WORKERS + 1, True):
            self.assertRaises(ValueError, ServerAnnouncement, workers=number)

    def test_what_is_spoken(self) -> None:
        """What is not understood as a whole is as good as nothing: then anything may be tried."""
        self.assertNotIn("speaks", Announcement("a1").to_extra()["reverseproxy"])
        extra = Announcement("a1", speaks=("Http1", "bolt")).to_extra()
        found = Announcement.from_extra(extra)
        assert found is not None
        self.assertEqual(found.speaks, ("Http1", "bolt"))
        for value in (None, True, "Http1", {}, [1], ["Http1", None], [""], ["x" * 257], ["\n"], ["a"] * 17):
            found = Announcement.from_extra(ours(version=1, agent="a1", speaks=value))
            assert found is not None, value
            self.assertEqual(found.speaks, ())
        for names in (("a",) * 17, ("",), ("x" * 257,)):
            self.assertRaises(ValueError, Announcement, "a1", speaks=names)

    def test_form(self) -> None:
        self.assertEqual(
            Announcement("a1", "10.0.0.1:5", {"zone": "b"}).to_extra(),
            {
                "reverseproxy": {
                    "version": 1,
                    "agent": "a1",
                    "local_address": "10.0.0.1:5",
                    "metadata": {"zone": "b"},
                }
            },
        )

    def test_round_trip(self) -> None:
        announcement = Announcement("a1", "[::1]:5", {"zone": "b"})
        self.assertEqual(Announcement.from_extra(announcement.to_extra()), announcement)
        self.assertEqual(hash(announcement), hash(Announcement("a1", "[::1]:5")))

    def test_streams(self) -> None:
        offer = Announcement("a", mux=(YAMUX, "other"))
        self.assertEqual(offer.to_extra()["reverseproxy"]["mux"], ["yamux", "other"])
        self.assertEqual(Announcement.from_extra(offer.to_extra()), offer)
        # Nothing is said of them by those who don't want them.
        self.assertNotIn("mux", Announcement("a").to_extra()["reverseproxy"])

    def test_windows(self) -> None:
        offer = Announcement("a", mux=(YAMUX,), window=65536)
        self.assertEqual(offer.to_extra()["reverseproxy"]["window"], 65536)
        self.assertEqual(Announcement.from_extra(offer.to_extra()), offer)
        self.assertNotIn("window", Announcement("a", mux=(YAMUX,)).to_extra()["reverseproxy"])
        for wrong in (None, True, 1.5, "65536", -1, 1, MIN_MUX_WINDOW - 1, MAX_MUX_WINDOW + 1, [], 2**70):
            found = Announcement.from_extra(ours(version=1, agent="a", window=wrong))
            assert found is not None
            self.assertEqual(found.window, 0)
        self.assertRaises(ValueError, Announcement, "a", window=1)

    def test_bad_offers_of_streams_are_left_out(self) -> None:
        bad: list[Any] = [None, 7, "yamux", {"yamux": 1}, [7], [""], ["x" * (MAX_TEXT_LENGTH + 1)], ["a\nb"]]
        for mux in bad:
            found = Announcement.from_extra(ours(version=1, agent="a", mux=mux))
            assert found is not None
            self.assertEqual(found.mux, ())
        many = Announcement.from_extra(ours(version=1, agent="a", mux=[7, *"abcdefghijklmnop"]))
        assert many is not None
        self.assertEqual(many.mux, tuple("abcdefg"))
        for wrong in (("a",) * (MAX_MUX_ENTRIES + 1), ("",), ("a\nb",), (7,)):
            self.assertRaises(ValueError, Announcement, "a", mux=wrong)

    def test_a_newer_version_and_its_keys_are_taken(self) -> None:
        self.assertEqual(
            Announcement.from_extra(ours(version=7, agent="a", streams=True)), Announcement("a", version=7)
        )

    def test_not_well_formed(self) -> None:
        good = {"version": 1, "agent": "a"}
        self.assertIsNotNone(Announcement.from_extra(ours(**good)))
        for change in (
            {"version": 0},
            {"version": True},
            {"version": "1"},
            {"version": 1.0},
            {"version": None},
            {"agent": ""},
            {"agent": 1},
            {"agent": None},
            {"agent": "x" * (MAX_AGENT_LENGTH + 1)},
            {"agent": "a\nb"},
            {"local_address": 1},
            {"local_address": "x" * (MAX_TEXT_LENGTH + 1)},
            {"local_address": "\x1b[2J"},
        ):
            self.assertIsNone(Announcement.from_extra(ours(**{**good, **change})), change)

    def test_none_there(self) -> None:
        for extra in (None, {}, {"reverseproxy": None}, {"reverseproxy": []}, {"reverseproxy": "x"}, ours()):
            self.assertIsNone(Announcement.from_extra(extra))
            self.assertIsNone(ServerAnnouncement.from_extra(extra))
            self.assertIsNone(CloseProof.from_extra(extra))

    def test_bad_metadata_is_left_out(self) -> None:
        metadata = {
            "good": "x",
            "": "x",
            "number": 1,
            "long": "x" * 300,
            "x" * 300: "",
            "line\n": "",
            "empty": "",
        }
        announcement = Announcement.from_extra(ours(version=1, agent="a", metadata=metadata))
        assert announcement is not None
        self.assertEqual(announcement.metadata, {"good": "x", "empty": ""})
        for value in (None, 1, "x", ["a"]):
            announcement = Announcement.from_extra(ours(version=1, agent="a", metadata=value))
            assert announcement is not None
            self.assertEqual(announcement.metadata, {})

    def test_surplus_metadata_is_left_out(self) -> None:
        metadata = {str(number): "x" for number in range(1000)}
        announcement = Announcement.from_extra(ours(version=1, agent="a", metadata=metadata))
        assert announcement is not None
        self.assertEqual(len(announcement.metadata), MAX_METADATA_ENTRIES)

    def test_ours_must_be_within_the_bounds(self) -> None:
        for arguments, pattern in (
            ({"agent": ""}, "agent id must have 1 to 128"),
            ({"agent": "a\n"}, "printable"),
            ({"agent": "a", "local_address": "x" * 300}, "local address must have 0 to 256"),
            ({"agent": "a", "metadata": {"k": "x" * 300}}, "metadata value of k"),
            ({"agent": "a", "metadata": {"": "x"}}, "metadata key"),
            ({"agent": "a", "metadata": {str(n): "" for n in range(33)}}, "32 entries, not 33"),
            ({"agent": "a", "version": 0}, "version"),
        ):
            self.assertRaisesRegex(ValueError, pattern, lambda given=arguments: Announcement(**given))

    @given(st.dictionaries(st.just("reverseproxy"), ANYTHING))
    def test_anything_may_come(self, extra: dict[str, Any]) -> None:
        for kind in (Announcement, ServerAnnouncement, CloseProof):
            found = kind.from_extra(extra)
            if found is not None:
                self.assertEqual(kind.from_extra(found.to_extra()), found)


class ServerAnnouncementTests(SynchronousTestCase):
    def test_streams(self) -> None:
        choice = ServerAnnouncement(mux=YAMUX)
        self.assertEqual(choice.to_extra(), {"reverseproxy": {"version": 1, "mux": "yamux"}})
        self.assertEqual(ServerAnnouncement.from_extra(choice.to_extra()), choice)
        self.assertEqual(ServerAnnouncement.from_extra(ours(version=1)), ServerAnnouncement())
        for mux in (7, None, "x" * (MAX_TEXT_LENGTH + 1), "a\nb"):
            self.assertIsNone(ServerAnnouncement.from_extra(ours(version=1, mux=mux)))

    def test_windows(self) -> None:
        choice = ServerAnnouncement(mux=YAMUX, window=MIN_MUX_WINDOW)
        self.assertEqual(
            choice.to_extra(), {"reverseproxy": {"version": 1, "mux": "yamux", "window": MIN_MUX_WINDOW}}
        )
        self.assertEqual(ServerAnnouncement.from_extra(choice.to_extra()), choice)
        for wrong in (None, True, "65536", -1, MIN_MUX_WINDOW - 1, MAX_MUX_WINDOW + 1):
            self.assertIsNone(ServerAnnouncement.from_extra(ours(version=1, mux=YAMUX, window=wrong)))

    def test_retry_after(self) -> None:
        busy = ServerAnnouncement(retry_after=1500)
        self.assertEqual(busy.to_extra(), {"reverseproxy": {"version": 1, "retry_after": 1500}})
        self.assertEqual(ServerAnnouncement.from_extra(busy.to_extra()), busy)
        for wrong in (-1, 1.5, True, "1", None, [], MAX_RETRY_AFTER + 1):
            self.assertIsNone(ServerAnnouncement.from_extra(ours(version=1, retry_after=wrong)))

    def test_form(self) -> None:
        extra = ServerAnnouncement().to_extra()
        self.assertEqual(extra, {"reverseproxy": {"version": 1}})
        self.assertEqual(ServerAnnouncement.from_extra(extra), ServerAnnouncement(1))

    def test_bounds(self) -> None:
        self.assertRaises(ValueError, ServerAnnouncement, 0)
        self.assertIsNone(ServerAnnouncement.from_extra(ours(version=-1)))


class CloseProofTests(SynchronousTestCase):
    def test_form(self) -> None:
        proof = CloseProof("a1", "static", "secret")
        extra = proof.to_extra()
        self.assertEqual(
            extra,
            {"reverseproxy": {"agent": "a1", "credential_policy": "static", "credential": "secret"}},
        )
        self.assertEqual(CloseProof.from_extra(extra), proof)

    def test_no_credential(self) -> None:
        self.assertEqual(CloseProof.from_extra(ours(agent="a")), CloseProof("a", "", ""))

    def test_not_well_formed(self) -> None:
        for change in ({"agent": ""}, {"credential": 1}, {"credential_policy": "x" * 300}):
            self.assertIsNone(CloseProof.from_extra(ours(**{"agent": "a", **change})))

    def test_the_credential_is_not_shown(self) -> None:
        self.assertNotIn("secret", repr(CloseProof("a1", "static", "secret")))
