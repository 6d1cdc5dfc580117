"""Transports that asyncio does not have, with asyncio's interface. They do not depend on AMP."""
