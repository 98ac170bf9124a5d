"""Tests for L{reverseproxy.admin.pages}: the files of the dashboard."""

from __future__ import annotations

from importlib.resources import files

from reverseproxy.admin.pages import FILES, POLICY
from tests.admin.test_service import AdminTestCase
from tests.admin.world import World

DIRECTORY = files("reverseproxy.admin").joinpath("dashboard")


class PageTests(AdminTestCase):
    def test_every_file(self) -> None:
        """All that there is is served, to anybody, with a policy that lets nothing else in."""
        world = self.with_tokens()
        self.assertEqual({each.name for each in DIRECTORY.iterdir()}, set(FILES))
        for name in FILES:
            answer = world.ask(f"/dashboard/{name}")
            self.assertEqual((answer.status, answer.body), (200, DIRECTORY.joinpath(name).read_bytes()), name)
            self.assertEqual(answer.headers["content-security-policy"], POLICY)
            self.assertEqual(answer.headers["cache-control"], "no-cache")
            self.assertEqual(answer.headers["x-content-type-options"], "nosniff")
        page = world.ask("/dashboard")
        self.assertEqual(page.headers["content-type"], "text/html; charset=utf-8")
        answer = world.ask("/dashboard/")  # where the links of the page would lead elsewhere
        self.assertEqual((answer.status, answer.headers["location"]), (302, "../dashboard"))
        for path in ("/dashboard/nothing.js", "/dashboard/..", "/dashboard/%2e%2e%2faccess.py"):
            self.assertEqual(world.ask(path, Authorization="").status, 404, path)
        self.assertEqual(world.ask("/dashboard", "POST").status, 405)
        self.assertEqual(world.ask("/dashboard", "HEAD").body, b"")

    def test_a_file_that_is_known(self) -> None:
        world = World()
        tag = world.ask("/dashboard/app.js").headers["etag"]
        for known in (tag, f"W/{tag}", f'"another", {tag}'):
            answer = world.ask("/dashboard/app.js", If_None_Match=known)
            self.assertEqual((answer.status, answer.body), (304, b""), known)
            self.assertNotIn("content-length", answer.headers)
        self.assertEqual(world.ask("/dashboard/app.js", If_None_Match='"another"').status, 200)

    def test_the_root(self) -> None:
        """A browser is shown the page, and whoever else asks what paths there are."""
        world = World()
        answer = world.ask("/", Accept="text/html,application/xhtml+xml,*/*;q=0.8")
        self.assertEqual((answer.status, answer.headers["location"]), (302, "dashboard"))
        self.assertIn(b"/metrics\n", world.ask("/", Accept="*/*").body)

    def test_pages_of_others(self) -> None:
        """A name of somebody else that leads here gets no page, either."""
        self.assertEqual(World().ask("/dashboard", Host="evil.example").status, 421)

    def test_nothing_from_elsewhere(self) -> None:
        """No file names another host, or makes markup of text."""
        for name in FILES:
            text = DIRECTORY.joinpath(name).read_text().replace("http://www.w3.org/2000/svg", "")
            self.assertNotRegex(text, r"https?:|//[a-z]+\.")
            self.assertNotRegex(text, r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|srcdoc")
            self.assertNotRegex(text, r"<script(?![^>]* src=)|<style|\son[a-z]+=\"| style=\"")
