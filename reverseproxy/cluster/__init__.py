"""Who can serve: hosts, membership, choice."""
