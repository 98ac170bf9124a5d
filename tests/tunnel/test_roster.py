"""Tests for L{reverseproxy.tunnel.agent.roster}."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.tunnel.agent.roster import Roster
from reverseproxy.tunnel.agent.slot_interfaces import SlotState


class RosterTests(SynchronousTestCase):
    @given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(SlotState))))
    def test_the_same_as_asking_all(self, changes: list[tuple[int, SlotState]]) -> None:
        roster = Roster()
        states: dict[int, SlotState] = {}
        for number, state in changes:
            roster.note(number, state)
            states[number] = state
            self.assertEqual(roster.serving, list(states.values()).count(SlotState.SERVING))
        waiting = sorted(number for number, state in states.items() if state is SlotState.WAITING)
        self.assertEqual(roster.take_waiting(), waiting)
        self.assertEqual(roster.take_waiting(), [])

    def test_whoever_waits_again_is_told_of_again(self) -> None:
        roster = Roster()
        for state in (SlotState.WAITING, SlotState.DIALLING, SlotState.WAITING):
            roster.note(3, state)
        self.assertEqual(roster.take_waiting(), [3])
        roster.note(3, SlotState.WAITING)
        self.assertEqual(roster.take_waiting(), [3])
