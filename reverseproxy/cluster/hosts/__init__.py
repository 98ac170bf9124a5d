"""The kinds of hosts; L{reverseproxy.cluster.host} exports them all."""
