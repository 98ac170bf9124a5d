"""Tests for L{reverseproxy.proxy.flags}."""

from __future__ import annotations

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost, DNSLookupError
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.errors import ClusterUnknown, NoHealthyHost, NoHostCame, PickFailed, QueueFull, QueueTimeout
from reverseproxy.proxy.flags import (
    NO_FLAGS,
    ResponseFlag,
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
        flags = ResponseFlag.URX | ResponseFlag.UF
        self.assertEqual(short_names(flags), "UF,URX")
        self.assertEqual(long_names(flags), "UpstreamConnectionFailure,UpstreamRetryLimitExceeded")

    def test_each_has_names_of_its_own(self) -> None:
        short = {short_names(flag) for flag in ResponseFlag}
        long = {long_names(flag) for flag in ResponseFlag}
        self.assertEqual((len(short), len(long)), (len(ResponseFlag), len(ResponseFlag)))
        self.assertNotIn("", short | long)

    def test_the_remedy_is_for_the_cause(self) -> None:
        """That all attempts are used up is no cause."""
        self.assertEqual(what_to_do(ResponseFlag.UF | ResponseFlag.URX), what_to_do(ResponseFlag.UF))
        self.assertEqual(what_to_do(ResponseFlag.UF | ResponseFlag.UH), what_to_do(ResponseFlag.UF))
        self.assertEqual(what_to_do(ResponseFlag.UF | ResponseFlag.DF), what_to_do(ResponseFlag.DF))
        self.assertNotEqual(what_to_do(ResponseFlag.DF), what_to_do(ResponseFlag.UF))

    def test_errors(self) -> None:
        for error, flags in (
            (NoHealthyHost(), ResponseFlag.UH),
            (NoHostCame(), ResponseFlag.UH),
            (QueueFull(), ResponseFlag.UO),
            (QueueTimeout(), ResponseFlag.UO),
            (ClusterUnknown(), ResponseFlag.NC),
            (DNSLookupError(), ResponseFlag.UF | ResponseFlag.DF),
            (PickFailed(), NO_FLAGS),
            (None, NO_FLAGS),
        ):
            self.assertEqual(flag_of(error), flags, repr(error))

    def test_who_ended_a_connection(self) -> None:
        self.assertEqual(who_ended(Failure(ConnectionAborted())), ResponseFlag.LR)
        for error in (ConnectionDone(), ConnectionLost()):
            self.assertEqual(who_ended(Failure(error)), ResponseFlag.DC)
