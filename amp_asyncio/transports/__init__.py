"""Transports: what asyncio has none for, under the same interface. They know nothing of AMP."""
