"""A browser without a window, in a thread of its own, as Playwright's calls wait for what they ask for."""

from __future__ import annotations

__all__ = ["BROWSER", "Browser", "shared_browser"]

import atexit
import functools
import os
import shutil
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

BROWSER = next(
    filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "google-chrome"))), None
)
"""The program; L{None} where there is none."""

PATIENCE = 30000
"""Milliseconds that anything may take to be seen."""


class Browser:
    """
    Chromium.

    @ivar complaints: what pages have written to the console as errors, and dialogs
        that they have shown.
    """

    def __init__(self) -> None:
        self.complaints: list[str] = []
        self._broken: BaseException | None = None
        self._work: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._play()
        except BaseException as error:
            self._broken = error
            while (work := self._work.get()) is not None:
                work()

    def _play(self) -> None:
        from playwright.sync_api import sync_playwright

        # In a container, which runs us as root, Chromium has no sandbox, and hardly any shared memory.
        arguments = ["--no-sandbox", "--disable-dev-shm-usage"] if os.geteuid() == 0 else []
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=BROWSER, args=arguments)
            self._chromium = chromium
            while (work := self._work.get()) is not None:
                work()
            chromium.close()

    def stop(self) -> None:
        """End it."""
        self._work.put(None)
        self._thread.join(60)

    def see(
        self, url: str, look: Callable[[Any], object], frozen: bool = False, **options: Any
    ) -> Deferred[Any]:
        """
        Open a page.

        @param look: looks at it, in the browser's thread.
        @param frozen: let time pass for the page as C{look} wants it.
        @param options: of Playwright's C{new_context}.
        @return: what C{look} has returned.
        """
        done: Deferred[Any] = Deferred()

        def work() -> None:
            try:
                if self._broken is not None:
                    raise self._broken
                context = self._chromium.new_context(viewport={"width": 1280, "height": 720}, **options)
                context.set_default_timeout(PATIENCE)
                page = context.new_page()
                page.on("dialog", lambda dialog: self._complain(f"dialog: {dialog.message}", dialog))
                page.on("pageerror", lambda error: self.complaints.append(str(error)))
                page.on("console", lambda message: message.type == "error" and self._console(message))
                try:
                    if frozen:
                        page.clock.install()
                    page.goto(url)
                    result = look(page)
                finally:
                    context.close()
            except BaseException:
                reactor.callFromThread(done.errback, Failure())  # type: ignore[attr-defined]
            else:
                reactor.callFromThread(done.callback, result)  # type: ignore[attr-defined]

        self._work.put(work)
        return done

    def _complain(self, text: str, dialog: Any) -> None:
        self.complaints.append(text)
        dialog.dismiss()

    def _console(self, message: Any) -> None:
        # What was answered with an error is shown by the page, and looked at by the tests.
        if not message.text.startswith("Failed to load resource"):
            self.complaints.append(message.text)


@functools.cache
def shared_browser() -> Browser:
    """
    The browser of all tests of this process: it takes a second to begin.

    It ends with the process.  A worker of trial's tells its reactor of a shutdown after
    each test.
    """
    browser = Browser()
    atexit.register(browser.stop)
    return browser
