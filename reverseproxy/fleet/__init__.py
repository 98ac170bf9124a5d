"""A fleet of servers: every server can forward requests to the agents of every other one."""
