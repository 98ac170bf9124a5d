"""Tests for L{reverseproxy.proxy.flags}."""

from __future__ import annotations

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost, DNSLookupError
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.errors import ClusterUnknown, NoHealthyHost, NoHostCame, PickFailed, QueueFull, QueueTimeout
from reverseproxy.proxy.flags import (
    NO_FLAGS,
    Flag,
    flag_of,
    long_names,
    short_names,
    what_to_do,
    who_ended,
)


class FlagTests(SynchronousTestCase):
    """Codes and what is said of them."""

    def test_none(self) -> None:
        self.assertEqual((short_names(NO_FLAGS), long_names(NO_FLAGS), what_to_do(NO_FLAGS)), ("", "", ""))

    def test_several(self) -> None:
        flags = Flag.URX | Flag.UF
        self.assertEqual(short_names(flags), "UF,URX")
        self.assertEqual(long_names(flags), "UpstreamConnectionFailure,UpstreamRetryLimitExceeded")

    def test_each_has_names_of_its_own(self) -> None:
        short = {short_names(flag) for flag in Flag}
        long = {long_names(flag) for flag in Flag}
        self.assertEqual((len(short), len(long)), (len(Flag), len(Flag)))
        self.assertNotIn("", short | long)

    def test_the_remedy_is_for_the_cause(self) -> None:
        """That all attempts are used up is no cause."""
        self.assertEqual(what_to_do(Flag.UF | Flag.URX), what_to_do(Flag.UF))
        self.assertEqual(what_to_do(Flag.UF | Flag.UH), what_to_do(Flag.UF))
        self.assertEqual(what_to_do(Flag.UF | Flag.DF), what_to_do(Flag.DF))
        self.assertNotEqual(what_to_do(Flag.DF), what_to_do(Flag.UF))

    def test_errors(self) -> None:
        for error, flags in (
            (NoHealthyHost(), Flag.UH),
            (NoHostCame(), Flag.UH),
            (QueueFull(), Flag.UO),
            (QueueTimeout(), Flag.UO),
            (ClusterUnknown(), Flag.NC),
            (DNSLookupError(), Flag.UF | Flag.DF),
            (PickFailed(), NO_FLAGS),
            (None, NO_FLAGS),
        ):
            self.assertEqual(flag_of(error), flags, repr(error))

    def test_who_ended_a_connection(self) -> None:
        self.assertEqual(who_ended(Failure(ConnectionAborted())), Flag.LR)
        for error in (ConnectionDone(), ConnectionLost()):
            self.assertEqual(who_ended(Failure(error)), Flag.DC)
