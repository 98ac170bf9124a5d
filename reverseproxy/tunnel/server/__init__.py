"""The end of a tunnel that is dialled."""
