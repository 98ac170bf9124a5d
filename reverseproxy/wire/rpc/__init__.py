"""RPC protocols of whole frames."""
