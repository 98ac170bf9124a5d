"""Tests for L{reverseproxy.tracing.context}."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.tracing.context import (
    FORMATS,
    TRACE_FIELDS,
    PropagatedContext,
    TraceContext,
    extract,
    inject,
    trace_id_of,
)

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
CONTEXT = TraceContext(int(TRACE, 16), int(SPAN, 16), True)


def lookup_of(fields: list[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in fields}


class ExtractTests(SynchronousTestCase):
    """What requests say."""

    def test_w3c(self) -> None:
        for text, sampled in (
            (f"00-{TRACE}-{SPAN}-01", True),
            (f"00-{TRACE}-{SPAN}-00", False),
            (f" 00-{TRACE}-{SPAN}-03\t", True),
            (f"cc-{TRACE}-{SPAN}-01", True),
            (f"cc-{TRACE}-{SPAN}-01-what-comes-later", True),
        ):
            found = extract({"traceparent": text}.get)
            self.assertEqual(
                found, PropagatedContext(CONTEXT._replace(sampled=sampled), None, ("w3c",)), text
            )

    def test_broken_w3c(self) -> None:
        for text in (
            "",
            "00",
            f"00-{TRACE}-{SPAN}",
            f"00-{TRACE}-{SPAN}-01-more",
            f"00-{TRACE}-{SPAN}-1",
            f"ff-{TRACE}-{SPAN}-01",
            f"00-{'0' * 32}-{SPAN}-01",
            f"00-{TRACE}-{'0' * 16}-01",
            f"00-{TRACE.upper()}-{SPAN}-01",
            f"00-{TRACE}-{SPAN}-01, 00-{TRACE}-{SPAN}-01",
            f"00-{TRACE[:-1]}\u0664-{SPAN}-01",
        ):
            self.assertEqual(extract({"traceparent": text}.get), PropagatedContext(), text)

    def test_state(self) -> None:
        long = ",".join(f"k{number}={'v' * 100}" for number in range(10))
        for text, state in (
            ("a=1,b=2", "a=1,b=2"),
            (" a=1 ,, b=2\t", "a=1,b=2"),
            ("tenant@system=x y", "tenant@system=x y"),
            (long, long[: long.index(",k4")]),
            ("a=1,b", ""),
            ("a=\r\nx: y", ""),
            ("A=1", ""),
            (",".join(f"k{number}=v" for number in range(33)), ""),
        ):
            found = extract({"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": text}.get).context
            assert found is not None
            self.assertEqual(found.state, state)

    def test_state_without_parent(self) -> None:
        self.assertEqual(extract({"tracestate": "a=1"}.get), PropagatedContext())

    def test_b3(self) -> None:
        short = CONTEXT._replace(trace_id=int(TRACE[16:], 16))
        for text, context, wanted in (
            (f"{TRACE}-{SPAN}-1", CONTEXT, None),
            (f"{TRACE}-{SPAN}-d", CONTEXT, None),
            (f"{TRACE}-{SPAN}-0-05e3ac9a4f6e3b90", CONTEXT._replace(sampled=False), None),
            (f"{TRACE}-{SPAN}", CONTEXT._replace(sampled=None), None),
            (f"{TRACE[16:].upper()}-{SPAN}-1", short, None),
            ("0", None, False),
            ("1", None, True),
            ("d", None, True),
        ):
            self.assertEqual(extract({"b3": text}.get), PropagatedContext(context, wanted, ("b3",)), text)

    def test_broken_b3(self) -> None:
        for text in (
            "",
            "2",
            "true",
            TRACE,
            f"{TRACE}-{SPAN}-2",
            f"{'0' * 32}-{SPAN}-1",
            f"{TRACE}-{SPAN}-1-x",
        ):
            self.assertEqual(extract({"b3": text}.get), PropagatedContext(), text)

    def test_multi(self) -> None:
        for sampled, expected in (("1", True), ("True", True), ("0", False), ("false", False), ("?", None)):
            fields = {"x-b3-traceid": TRACE, "x-b3-spanid": SPAN.upper(), "x-b3-sampled": sampled}
            found = extract(fields.get)
            self.assertEqual(
                found, PropagatedContext(CONTEXT._replace(sampled=expected), expected, ("b3multi",))
            )
        found = extract({"x-b3-traceid": TRACE, "x-b3-spanid": SPAN, "x-b3-flags": "1"}.get)
        self.assertEqual(found.context, CONTEXT)

    def test_only_a_decision(self) -> None:
        self.assertEqual(extract({"x-b3-sampled": "0"}.get), PropagatedContext(None, False, ("b3multi",)))

    def test_broken_multi(self) -> None:
        for trace, span in ((TRACE[1:], SPAN), (TRACE, SPAN[1:]), ("0" * 32, SPAN), (TRACE, "")):
            self.assertEqual(extract({"x-b3-traceid": trace, "x-b3-spanid": span}.get), PropagatedContext())
        self.assertEqual(extract({"x-b3-traceid": TRACE}.get), PropagatedContext())

    def test_several(self) -> None:
        """W3C's counts first; what comes next hears it in every way that it may know."""
        other = "1" * 32
        fields = {
            "traceparent": f"00-{TRACE}-{SPAN}-01",
            "b3": f"{other}-{SPAN}-0",
            "x-b3-traceid": other,
            "x-b3-spanid": SPAN,
        }
        self.assertEqual(extract(fields.get), PropagatedContext(CONTEXT, None, FORMATS))

    def test_trace_id_of(self) -> None:
        self.assertEqual(trace_id_of({"b3": f"{TRACE}-{SPAN}-0"}.get), TRACE)
        self.assertEqual((trace_id_of({}.get), trace_id_of(None)), ("", ""))

    @given(st.text(max_size=80), st.text(max_size=80), st.text(max_size=80))
    def test_anything(self, parent: str, state: str, b3: str) -> None:
        """Nothing fails, and what is passed on is always a proper field."""
        fields = {"traceparent": parent, "tracestate": state, "b3": b3, "x-b3-traceid": parent}
        found = extract(fields.get)
        for _, value in inject(found.context or CONTEXT, FORMATS):
            self.assertRegex(value, rb"\A[\x20-\x7e]+\Z")


class InjectTests(SynchronousTestCase):
    """What is passed on."""

    def test_formats(self) -> None:
        context = CONTEXT._replace(state="a=1")
        self.assertEqual(
            lookup_of(inject(context, FORMATS)),
            {
                "traceparent": f"00-{TRACE}-{SPAN}-01",
                "tracestate": "a=1",
                "b3": f"{TRACE}-{SPAN}-1",
                "x-b3-traceid": TRACE,
                "x-b3-spanid": SPAN,
                "x-b3-sampled": "1",
            },
        )
        self.assertEqual(inject(context, ()), [])

    def test_undecided_is_not_sampled(self) -> None:
        fields = lookup_of(inject(CONTEXT._replace(sampled=None), ("w3c",)))
        self.assertEqual(fields, {"traceparent": f"00-{TRACE}-{SPAN}-00"})

    def test_back_and_forth(self) -> None:
        for form in FORMATS:
            for sampled in (True, False):
                context = CONTEXT._replace(sampled=sampled)
                found = extract(lookup_of(inject(context, (form,))).get)
                self.assertEqual((found.context, found.formats), (context, (form,)))

    def test_all_fields_are_known(self) -> None:
        """What is written again is among what is taken out before."""
        names = {name for name, _ in inject(CONTEXT._replace(state="a=1"), FORMATS)}
        self.assertEqual(names - TRACE_FIELDS, set())
