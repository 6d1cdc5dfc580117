"""The connection between a transport and a session: how it starts, changes and ends."""
