"""The kinds of hosts that there are; L{reverseproxy.cluster.host} has them all."""
