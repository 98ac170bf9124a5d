"""
The dashboard in Chromium, of a server with real sockets.

Chromium is no package of Python's: a machine without it has fewer tests, and
C{.ci/run} says so.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from reverseproxy.fleet.records import HostRecord, ServerRecord
from reverseproxy.identity import AgentIdentity
from tests.admin.world import STATIC
from tests.dashboard.browser import BROWSER, shared_browser
from tests.dashboard.screenshots import Demo
from tests.dashboard.world import HOSTILE, READ, TOKEN, Crowd, World, agent_facts
from tests.integration.clients import fetch
from tests.tunnel.logged import capture

ROWS = "#rows .row"


def from_thread(function: Any, *args: Any) -> None:
    """Call something in the reactor's thread."""
    reactor.callFromThread(function, *args)  # type: ignore[attr-defined]


def enter(page: Any, token: str) -> None:
    """Enter a token, for which the page has asked."""
    page.wait_for_selector("#ask[open] input[name=token]")
    page.fill("#ask input[name=token]", token)
    with page.expect_navigation():
        page.click("#ask button[type=submit]")


class Seen(TestCase):
    """Base of tests in a browser."""

    timeout = 120

    def setUp(self) -> None:
        self.browser = shared_browser()
        self.browser.complaints.clear()
        logged = capture()
        logged.__enter__()
        self.addCleanup(logged.__exit__, None, None, None)

    def world(self, **more: Any) -> World:
        world = World(self.mktemp(), **more)
        self.addCleanup(lambda: Deferred.fromCoroutine(world.stop()))
        return world

    async def see(self, world: World | Crowd, look: Any, path: str = "", **options: Any) -> Any:
        """Look at a page, which must not complain."""
        result = await self.browser.see(world.url + path, look, **options)
        self.assertEqual(self.browser.complaints, [])
        return result


class PictureTests(TestCase):
    async def test_what_pictures_show(self) -> None:
        """The process that they are taken of answers as one that is not made up."""
        with capture():
            demo = Demo()
        self.addCleanup(lambda: Deferred.fromCoroutine(demo.stop()))
        port = int(demo.admin.listener.bound.rpartition(":")[2])
        for path in ("agents", "clusters", "routes", "joins/refused"):
            answer = await fetch(port, f"/api/tunnel/v1/{path}")
            self.assertEqual(answer.status, 200, path)
            self.assertGreater(len(json.loads(answer.body)["items"]), 1, path)


if BROWSER is not None:

    class DashboardTests(Seen):
        async def test_an_agent_joins_and_leaves(self) -> None:
            """Also one that calls itself something that would be markup: it is nothing but text."""
            world = self.world()

            def look(page: Any) -> None:
                page.wait_for_selector("#live[data-state=live]")
                page.wait_for_selector("#empty:has-text('No agent has joined yet')")
                from_thread(lambda: world.agent(host_name=HOSTILE, connections=3))
                row = page.wait_for_selector(f"{ROWS}:has-text('3')")
                self.assertIn(HOSTILE, row.inner_text())
                self.assertIn("unproved", row.inner_text())
                page.wait_for_selector("#tiles .tile:has-text('3 connections')")
                page.click(ROWS)
                page.wait_for_selector("#drawer h2")
                self.assertIn(HOSTILE, page.inner_text("#drawer"))
                self.assertEqual(page.evaluate("document.querySelectorAll('main img, aside img').length"), 0)
                page.keyboard.press("Escape")
                page.click("#tab-events")
                page.wait_for_selector("#view-events .pill:has-text('join')")
                self.assertIn(HOSTILE, page.inner_text("#view-events"))
                page.click("#tab-fleet")
                from_thread(world.agents[0].agents[0].drain)
                page.wait_for_selector("#empty:has-text('No agent has joined yet')")

            await self.see(world, look)

        async def test_other_servers(self) -> None:
            """Of a fleet: how they are reached, and which agents are there."""
            world = self.world(fleet=True, tokens=True)
            identity = AgentIdentity(claim=HOSTILE, version=1)
            host = HostRecord("clientCluster", "0" * 32, "b", connections=2, identity=identity, handle="0d1c")
            world.directory.hear_server(ServerRecord("b", "192.0.2.1:7443"), "b")
            world.directory.hear_host(host, host.key)

            def look(page: Any) -> None:
                enter(page, TOKEN)
                row = page.wait_for_selector(f"{ROWS}:has-text('at b: 2')")
                self.assertIn(HOSTILE, row.inner_text())
                from_thread(lambda: world.agent(host_name="at-both"))
                row = page.wait_for_selector(f"{ROWS}:has-text('at-both')")
                both = HostRecord("clientCluster", "1" * 32, "b", handle=row.get_attribute("id")[6:])
                from_thread(world.directory.hear_host, both, both.key)
                page.click(f"{ROWS}:has-text('at-both'):has-text('at b: 1')")
                page.click("#drawer-drain")
                page.click("#ask button[type=submit]")
                page.wait_for_selector("#toast:has-text('drained, but not everywhere: server b: no link')")
                page.keyboard.press("Escape")
                page.click("#tab-peers")
                page.wait_for_selector("#view-peers:has-text('This server is a.')")
                line = page.wait_for_selector("#view-peers tr:has-text('192.0.2.1:7443')")
                self.assertIn("is not on this machine", line.inner_text())
                from_thread(world.directory.hear_server, None, "b")
                page.wait_for_selector("#view-peers:has-text('There are no other servers in the fleet')")

            await self.see(world, look)

        async def test_draining_with_a_token(self) -> None:
            world = self.world(tokens=True, tunnel_config=STATIC)
            world.agent(connections=2, credential_policy="static", credential_config={"token": "very secret"})

            def drain(page: Any) -> None:
                page.click(f"{ROWS}:has-text('edge-7')")
                page.wait_for_selector("#drawer-drain")
                page.keyboard.press("d")
                page.fill("#ask input[name=seconds]", "120")
                page.click("#ask button[type=submit]")

            def look(page: Any) -> None:
                enter(page, "nobody's token")
                enter(page, READ)
                page.wait_for_selector("#about:has-text('read only')")
                drain(page)
                page.wait_for_selector("#toast:has-text('Not allowed')")
                page.keyboard.press("Escape")
                page.click("#token-button")
                enter(page, TOKEN)
                page.wait_for_selector("#about:not(:has-text('read only'))")
                drain(page)
                page.wait_for_selector("#toast:has-text('edge-7 is drained')")
                page.wait_for_selector("#empty:not([hidden])")
                page.keyboard.press("Escape")
                page.click("#tab-events")
                page.wait_for_selector("#view-events td:has-text('banned for 120 s')")
                page.click("#tab-refused")
                page.wait_for_selector("#view-refused td:has-text('agents/{id}/resume')")
                page.click("#view-refused tr:has-text('drained by') button")
                page.wait_for_selector("#toast:has-text('The ban is lifted')")
                page.wait_for_selector("#view-refused button", state="detached")

            await self.see(world, look)
            self.assertEqual(len(world.proxy.inspector.parts.agent_index), 0)

        async def test_explaining_a_request(self) -> None:
            world = self.world()
            world.agent()
            for _ in range(3):
                self.assertEqual((await fetch(world.port("clientListener"))).status, 200)

            def look(page: Any) -> None:
                page.keyboard.press("2")
                page.wait_for_selector("#routes td:has-text('prefix /')")
                self.assertIn("clientCluster", page.inner_text("#routes"))
                self.assertEqual(page.inner_text("#routes td:nth-child(5)"), "3")
                page.fill("#explain-host", "shop.example")
                page.fill("#explain-path", "/cart?x=<b>")
                page.fill("#explain-header", "no header")
                page.keyboard.press("Enter")
                page.wait_for_selector("#explained .bad:has-text('a header is written')")
                page.fill("#explain-header", "X-A: 1")
                page.click("#explain button")
                page.wait_for_selector("#explained .answer:has-text('cluster clientCluster')")
                page.wait_for_selector("#routes tr.hit")

            await self.see(world, look)

        async def test_reloading(self) -> None:
            """What is different in the file is shown, and what is wrong with it; and it is taken into use."""
            world = self.world(tokens=True)

            def change(document: Any) -> None:
                world.document = document

            def look(page: Any) -> None:
                enter(page, TOKEN)
                page.click("#tab-configuration")
                page.wait_for_selector("#config-state:has-text('generation 1')")
                page.click("#config-diff")
                page.wait_for_selector("#config-answer:has-text('No differences')")
                clusters = {**world.document["cluster_manager"]}
                clusters["clusters"] = [*clusters["clusters"], {"name": HOSTILE[:30], "lb_type": "LB_RANDOM"}]
                change({**world.document, "cluster_manager": clusters})
                page.click("#config-diff")
                page.wait_for_selector(f"#config-answer li:has-text('+ cluster {HOSTILE[:30]} added')")
                page.click("summary")
                page.fill("#config-text", '{"servers": 5}')
                page.click("#config-validate")
                page.wait_for_selector(
                    "#config-answer.bad:has-text('The configuration is invalid') >> li:has-text('servers')"
                )
                page.click("#config-reload")
                page.click("#ask button[type=submit]")
                page.wait_for_selector("#config-answer:has-text('Reloaded')")
                page.wait_for_selector("#config-state:has-text('generation 2')")

            await self.see(world, look)
            self.assertEqual(len(world.proxy.clusters), 2)

        async def test_ten_thousand_agents(self) -> None:
            """They come in pages, and only those that can be seen are in the page, and asked for again."""
            crowd = Crowd(map(agent_facts, range(10000)))
            self.addCleanup(lambda: Deferred.fromCoroutine(crowd.stop()))

            def look(page: Any) -> None:
                page.wait_for_selector("#count:has-text('10\u202f000 agents')")
                page.wait_for_selector(f"{ROWS}:has-text('edge-00000')")
                self.assertLess(page.locator(ROWS).count(), 60)
                self.assertEqual(page.get_attribute("#grid", "aria-rowcount"), "10001")
                page.wait_for_selector("#tiles .bad:has-text('104')")
                page.evaluate("document.getElementById('grid').scrollTop = 1e9")
                page.wait_for_selector(f"{ROWS}:has-text('edge-09999')")
                self.assertLess(page.locator(ROWS).count(), 60)
                page.focus("#grid")
                for key in ("Home", "PageDown", "j", "k", "ArrowDown"):
                    page.keyboard.press(key)
                page.wait_for_selector(f"{ROWS}[aria-selected=true]:has-text('edge-00011')")
                self.assertEqual(page.get_attribute("#grid", "aria-activedescendant"), f"agent-{11:016x}")
                page.keyboard.press("/")
                page.keyboard.type("edge-0777")
                page.wait_for_selector("#count:has-text('10 of 10\u202f000 agents')")
                page.fill("#search", "")
                page.select_option("#state", "missing")
                page.wait_for_selector("#count:has-text('104 of')")
                self.assertIn("3 of 4", page.inner_text(f"{ROWS} .bad"))
                page.select_option("#state", "")
                page.select_option("#sort", "rtt")
                page.wait_for_selector(f"{ROWS}:has-text('50.0 ms')")

            await self.see(crowd, look)
            self.assertGreater(sum(crowd.asked), 10000)
            self.assertLessEqual(max(crowd.asked), 100)

        async def test_keys_and_themes(self) -> None:
            world = self.world()

            def look(page: Any) -> None:
                def theme() -> Any:
                    return page.get_attribute("html", "data-theme")

                page.wait_for_selector("#live[data-state=live]")
                self.assertEqual(theme(), "dark")
                page.keyboard.press("t")
                self.assertEqual(theme(), "light")
                background = "getComputedStyle(document.body).backgroundColor"
                light = page.evaluate(background)
                page.keyboard.press("t")
                self.assertEqual(theme(), "dark")
                self.assertNotEqual(page.evaluate(background), light)
                page.keyboard.press("?")
                page.wait_for_selector("#ask[open]:has-text('search agents')")
                page.keyboard.press("Escape")
                page.wait_for_selector("#ask:not([open])", state="attached")
                page.keyboard.press("3")
                page.wait_for_selector("#view-refused:has-text('No join has been refused')")
                self.assertEqual(page.evaluate("document.activeElement.id"), "tab-refused")
                page.keyboard.press("ArrowRight")
                page.wait_for_selector("#view-certificates:has-text('No certificates are in use')")
                self.assertTrue(page.url.endswith("#certificates"))
                # Everything that can be pressed can be reached, and has a name.
                names = page.evaluate(
                    "[...document.querySelectorAll('button, input, select')].map((each) =>"
                    " each.ariaLabel || each.textContent.trim() || each.labels?.[0]?.textContent || '')"
                )
                self.assertNotIn("", names)

            await self.see(world, look, "dashboard", color_scheme="dark")
