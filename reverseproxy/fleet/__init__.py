"""A fleet of servers: who has which agents, so that any server reaches any agent."""
