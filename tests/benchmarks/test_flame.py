from __future__ import annotations

from xml.etree import ElementTree

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.flame import flame, own, place, read, without_waiting

RAW = """\
main (run.py:1);doPoll (twisted/internet/epollreactor.py:2);read (reverseproxy/wire/http1.py:3) 30
main (run.py:1);doPoll (twisted/internet/epollreactor.py:2) 60
main (run.py:1);send (/usr/lib/python3/site-packages/OpenSSL/SSL.py:9) 10
not a stack
"""


class PlaceTests(SynchronousTestCase):
    """L{place} tells our modules, packages of others and Python apart."""

    def test_examples(self) -> None:
        for function, expected in {
            "read (reverseproxy/wire/http1.py:3)": "reverseproxy/wire/http1",
            "read (/a/site-packages/reverseproxy/wire/http1.py)": "reverseproxy/wire/http1",
            "run (/a/site-packages/reverseproxy/tls/__init__.py:5)": "reverseproxy/tls",
            "send (OpenSSL/SSL.py:2343)": "OpenSSL",
            "send (/a/site-packages/OpenSSL/SSL.py:1)": "OpenSSL",
            "wait (threading.py:7)": "Python",
            "loads (json/__init__.py:7)": "Python",
            "decode (/usr/lib/python3.11/json/decoder.py:7)": "Python",
            "<module>": "Python",
            "EPollReactor.doPoll (twisted/internet/epollreactor.py:215)": "epoll",
            "callWithLogger (twisted/python/log.py:85)": "twisted",
        }.items():
            self.assertEqual(place(function), expected, function)


class StacksTests(SynchronousTestCase):
    """Stacks are read and summed up."""

    def test_own(self) -> None:
        self.assertEqual(
            own(read(RAW), place), [("epoll", 0.6), ("reverseproxy/wire/http1", 0.3), ("OpenSSL", 0.1)]
        )

    def test_waitingIsTakenOff(self) -> None:
        stacks = without_waiting(read(RAW), 0.5)
        self.assertEqual(own(stacks, place)[0], ("reverseproxy/wire/http1", 0.6))
        self.assertEqual(sum(stacks.values()), 50)

    def test_noMoreThanThereWas(self) -> None:
        self.assertEqual(sum(without_waiting(read(RAW), 0.9).values()), 40)

    def test_nobodyWaited(self) -> None:
        stacks = read("a (x.py:1) 3\n")
        self.assertEqual(without_waiting(stacks, 0.5), stacks)


class FlameTests(SynchronousTestCase):
    """L{flame} draws frames as wide as their share, and leaves out what is too small to see."""

    def test_widths(self) -> None:
        root = ElementTree.fromstring(flame("a & b", read(RAW)))
        widths = {}
        for group in root.iter("{http://www.w3.org/2000/svg}g"):
            title, box = group[0].text or "", group[1]
            widths[title.partition(" ")[0]] = float(box.get("width", ""))
        self.assertEqual(widths, {"doPoll": 1080.0, "read": 360.0, "send": 120.0})

    def test_rareOnesAreLeftOut(self) -> None:
        self.assertNotIn("rare", flame("t", read("a (x.py:1);b (x.py:2) 999\na (x.py:1);rare (x.py:3) 1\n")))

    def test_nothing(self) -> None:
        ElementTree.fromstring(flame("t", read("")))
