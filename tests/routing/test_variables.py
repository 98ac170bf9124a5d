"""Tests for L{reverseproxy.routing.variables}."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import urlencode

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.routing import RouteInput
from reverseproxy.routing.variables import EXCHANGE_VARIABLES, LATE_VARIABLES, find_variable
from tests.routing.build import facts

REQUEST = replace(
    facts("/a b", "h:80", "GET", "x=1&y=%20+2&x=3&z", "https", x_user="u", cookie="id=7"),
    variables={"x-mosn-path-original": "/a%20b", "listener_name": "l", "response_header_a": "b"}.get,
)
RPC = RouteInput.of_rpc({"service": "s"}.get, "bolt", {"x-mosn-rpc-service": "s"}.get)


def value(name: str, request: RouteInput = REQUEST, late: bool = False) -> str | None:
    """A variable's value."""
    getter = find_variable(name, late)
    assert getter is not None, name
    return getter(request)


class VariableTests(SynchronousTestCase):
    """L{find_variable}."""

    def test_values(self) -> None:
        """What the request says by itself."""
        for name, expected, of_rpc in [
            ("x-mosn-method", "GET", None),
            ("x-mosn-path", "/a b", None),
            ("x-mosn-path-original", "/a%20b", None),
            ("x-mosn-querystring", "x=1&y=%20+2&x=3&z", None),
            ("x-mosn-host", "h:80", None),
            ("authority", "h:80", None),
            ("x-mosn-scheme", "https", None),
            ("protocol", "Http1", "bolt"),
            ("request_header_x-user", "u", None),
            ("request_header_X-User", "u", None),
            ("request_header_service", None, "s"),
            ("Http1_request_method", "GET", None),
            ("Http1_request_path", "/a b", None),
            ("Http1_request_path_original", "/a%20b", None),
            ("Http1_request_arg", "x=1&y=%20+2&x=3&z", None),
            ("Http1_request_uri", "/a%20b?x=1&y=%20+2&x=3&z", None),
            ("Http1_request_scheme", "https", None),
            ("Http1_request_header_X-User", "u", None),
            ("Http1_request_arg_x", "1", None),
            ("Http1_request_arg_y", "  2", None),
            ("Http1_request_arg_z", "", None),
            ("Http1_request_arg_a", None, None),
            ("Http1_cookie_id", "7", None),
            ("Http1_cookie_ID", None, None),
            ("listener_name", "l", None),
            ("downstream_remote_address", None, None),
            ("x-mosn-rpc-service", None, "s"),
        ]:
            self.assertEqual(value(name), expected, name)
            self.assertEqual(value(name, RPC), of_rpc, name)

    def test_protocol(self) -> None:
        """What has the name of a protocol before it is for requests of that protocol."""
        second = replace(REQUEST, protocol="Http2")
        for name in ["request_method", "request_header_x-user", "cookie_id", "request_arg_x"]:
            self.assertIsNone(value(f"Http2_{name}"))
            self.assertIsNone(value(f"Http1_{name}", second))
            self.assertEqual(value(f"Http2_{name}", second), value(f"Http1_{name}"))

    def test_uri(self) -> None:
        """The path as it came if that is known, and the query if there is one."""
        request = facts("/a", query="b")
        self.assertEqual(value("Http1_request_uri", request), "/a?b")
        self.assertEqual(value("Http1_request_uri", facts("/a")), "/a")
        self.assertIsNone(value("Http1_request_uri", facts("")))

    def test_exchange(self) -> None:
        """The rest is asked of the exchange, if there is one."""
        asked: list[str] = []

        def answer(name: str) -> str | None:
            asked.append(name)
            return name.upper()

        request = replace(REQUEST, variables=answer)
        names = sorted(EXCHANGE_VARIABLES | LATE_VARIABLES | {"response_header_a"})
        for name in names:
            self.assertEqual(value(name, request, late=True), name.upper())
            self.assertIsNone(value(name, facts(), late=True))
        self.assertEqual(asked, names)

    def test_late(self) -> None:
        """What is known at the end only is nothing for a rule."""
        self.assertFalse(EXCHANGE_VARIABLES & LATE_VARIABLES)
        for name in [*LATE_VARIABLES, "response_header_a"]:
            self.assertIsNone(find_variable(name), name)
        for name in EXCHANGE_VARIABLES:
            self.assertIsNotNone(find_variable(name), name)

    def test_unknown(self) -> None:
        """Other names are no variables."""
        for name in [
            "", "method", "x-mosn-", "x-mosn-Method", "request_header_", "response_header_", "cookie_id",
            "Http1_", "Http1_x-mosn-path", "Http1_cookie_", "Http1_request_header_", "Http1_listener_name",
            "Http3_request_method", "bolt_request_method", "Http1_Http1_request_path",
        ]:  # fmt: skip
            self.assertIsNone(find_variable(name, late=True), name)

    @given(st.text(), st.text(), st.text(max_size=20))
    def test_anyText(self, query: str, cookies: str, name: str) -> None:
        """No request makes a variable raise."""
        request = facts(query=query, cookie=cookies)
        for prefix in ["Http1_request_arg_", "Http1_cookie_"]:
            getter = find_variable(prefix + name)
            if getter is not None:
                getter(request)

    @given(st.lists(st.tuples(st.text("ab&=% +", min_size=1), st.text("ab&=% +")), max_size=4))
    def test_arguments(self, pairs: list[tuple[str, str]]) -> None:
        """Arguments are found as browsers write them."""
        request = facts(query=urlencode(pairs))
        for name, _ in pairs:
            first = next(value for each, value in pairs if each == name)
            self.assertEqual(value(f"Http1_request_arg_{name}", request), first)
