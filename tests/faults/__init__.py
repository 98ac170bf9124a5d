"""What happens when something breaks: services, networks, peers.  Each test prints its figure."""
