"""Tests for L{reverseproxy.routing.retries}."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.config.models import RetryPolicyConfig
from reverseproxy.routing import DEFAULT_RETRY, Cause, RetryPolicy, should_retry

ON = RetryPolicy.of_config(RetryPolicyConfig(retry_on=True))
CODES = RetryPolicy.of_config(RetryPolicyConfig(retry_on=True, status_codes=(404, 503)))

outcomes = st.sampled_from([cause for cause in Cause if cause is not Cause.STATUS]) | st.integers(200, 599)
policies = st.sampled_from([DEFAULT_RETRY, ON, CODES])


class PolicyTests(SynchronousTestCase):
    """L{RetryPolicy.of_config}."""

    def test_nothing(self) -> None:
        """A policy that says nothing is the default one."""
        self.assertEqual(RetryPolicy.of_config(RetryPolicyConfig()), DEFAULT_RETRY)

    def test_retries(self) -> None:
        """There are three retries at least."""
        for configured, expected in [(0, 3), (1, 3), (3, 3), (4, 4), (100, 100)]:
            policy = RetryPolicy.of_config(RetryPolicyConfig(num_retries=configured))
            self.assertEqual(policy.retries, expected)

    def test_tryTimeout(self) -> None:
        """The time of an attempt; none if it is negative."""
        for configured, expected in [(0.0, 0.0), (1.5, 1.5), (-1.0, 0.0)]:
            policy = RetryPolicy.of_config(RetryPolicyConfig(retry_timeout=configured))
            self.assertEqual(policy.try_timeout, expected)

    def test_statusCodes(self) -> None:
        """The statuses are those configured."""
        self.assertEqual(CODES.status_codes, {404, 503})


class ShouldRetryTests(SynchronousTestCase):
    """L{should_retry}."""

    def test_table(self) -> None:
        """Each outcome, of a request that is safe to repeat."""
        for outcome, default, on, codes in [
            (Cause.UNREACHABLE, True, True, True),
            (Cause.STALE, True, True, True),
            (Cause.LOST, False, True, True),
            (Cause.TRY_TIMEOUT, False, True, True),
            (Cause.TIMEOUT, False, False, False),
            (Cause.OVERFLOW, False, False, False),
            (200, False, False, False),
            (404, False, False, True),
            (499, False, False, False),
            (500, False, True, False),
            (503, False, True, True),
            (599, False, True, False),
        ]:
            for policy, expected in [(DEFAULT_RETRY, default), (ON, on), (CODES, codes)]:
                self.assertEqual(should_retry(policy, 1, outcome, False, True), expected, (policy, outcome))

    def test_notSafe(self) -> None:
        """What a host may have seen is never sent again if that is not safe."""
        for policy in [DEFAULT_RETRY, ON, CODES]:
            for outcome in [*Cause, 404, 500, 503]:
                self.assertFalse(should_retry(policy, 1, outcome, False, False), outcome)

    def test_unsent(self) -> None:
        """What no host can have seen is sent again, whatever it is and whatever the policy says."""
        for idempotent in [False, True]:
            for policy in [DEFAULT_RETRY, ON, CODES]:
                for cause in [Cause.UNREACHABLE, Cause.STALE, Cause.LOST, Cause.TRY_TIMEOUT]:
                    self.assertTrue(should_retry(policy, 1, cause, True, idempotent), cause)
                for cause in [Cause.TIMEOUT, Cause.OVERFLOW]:
                    self.assertFalse(should_retry(policy, 1, cause, True, idempotent), cause)

    def test_refusedByStatus(self) -> None:
        """A status that says that the request was not acted upon still needs the policy."""
        for policy, expected in [(DEFAULT_RETRY, False), (ON, True), (CODES, True)]:
            self.assertEqual(should_retry(policy, 1, 503, True, False), expected)

    def test_budget(self) -> None:
        """There are as many retries as the policy has, beside the first attempt."""
        policy = RetryPolicy(retries=3)
        self.assertEqual(
            [should_retry(policy, attempt, Cause.UNREACHABLE, True, False) for attempt in range(1, 6)],
            [True, True, True, False, False],
        )

    @given(policies, st.integers(1, 10), outcomes, st.booleans(), st.booleans())
    def test_rule(
        self, policy: RetryPolicy, attempt: int, outcome: Cause | int, unsent: bool, idempotent: bool
    ) -> None:
        """The rule, as the docstring has it."""
        result = should_retry(policy, attempt, outcome, unsent, idempotent)
        if attempt > policy.retries or outcome in (Cause.TIMEOUT, Cause.OVERFLOW):
            self.assertFalse(result)
        elif isinstance(outcome, Cause) and unsent:
            self.assertTrue(result)
        else:
            self.assertEqual(result, (unsent or idempotent) and policy.wants(outcome))

    @given(policies, outcomes, st.booleans(), st.booleans())
    def test_bounded(self, policy: RetryPolicy, outcome: Cause | int, unsent: bool, idempotent: bool) -> None:
        """A request that always fails in the same way comes to an end."""
        attempt = 1
        while should_retry(policy, attempt, outcome, unsent, idempotent):
            attempt += 1
            self.assertLessEqual(attempt, 1 + policy.retries)
