"""What all protocols of the fake have in common: one end of one connection, without a socket."""

from __future__ import annotations

__all__ = ["Answered", "Answerer", "Asker", "Talk", "Unexpected"]

from collections.abc import Callable

Answered = Callable[[bytes], object]
"""Called with the body of an answer."""


class Unexpected(AssertionError):
    """The other end has sent what it should not have."""


class Talk:
    """
    One end of a connection.

    @ivar pieces: what is to be written, oldest first; each is one write of
        MOSN's, and not one more.
    @ivar spent: whether the connection can't be used any more, and is to be
        closed once all is written.
    """

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.spent = False

    def take(self) -> list[bytes]:
        """What is to be written now."""
        pieces, self.pieces = self.pieces, []
        return pieces

    def feed(self, data: bytes) -> None:
        """
        Take in what one read has brought.

        @raise Unexpected: if it can't be understood.
        """
        raise NotImplementedError

    def ended(self) -> None:
        """
        The other end has closed the connection.

        @raise Unexpected: if something was under way.
        """


class Asker(Talk):
    """
    The end that asks.

    @cvar at_once: how many requests may be under way on a connection.
    """

    at_once = 1 << 30

    def begin(self) -> None:
        """The connection is there: say what comes before any request."""

    def ask(self, body: bytes, answered: Answered) -> None:
        """Send a request; the service sends back its body."""
        raise NotImplementedError

    @property
    def under_way(self) -> int:
        """How many requests wait for their answers."""
        raise NotImplementedError

    def ended(self) -> None:
        if self.under_way:
            raise Unexpected(f"closed while {self.under_way} requests were under way")


class Answerer(Talk):
    """
    The end that answers, with what it was sent.

    @ivar holding: whether answers wait for L{release}.
    @ivar held: what sends the answers that wait.
    @ivar came: called when another one waits.
    """

    def __init__(self) -> None:
        super().__init__()
        self.holding = False
        self.held: list[Callable[[], None]] = []
        self.came: Callable[[], object] = lambda: None

    def answer(self, respond: Callable[[], None]) -> None:
        """A request is complete: answer it now or later."""
        if self.holding:
            self.held.append(respond)
            self.came()
        else:
            respond()

    def release(self) -> None:
        """Answer what waits, and hold no more."""
        self.holding = False
        held, self.held = self.held, []
        for respond in held:
            respond()

    def go_away(self) -> None:
        """Say, where the protocol has a word for it, that no more requests should come."""
