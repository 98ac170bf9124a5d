"""Tests for L{reverseproxy.listener}."""
