"""The session: what is asked and answered over one connection, and how that changes."""
