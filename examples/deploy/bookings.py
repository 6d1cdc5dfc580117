"""The commands of a hotel, which its service and its clients share."""

from amp_asyncio import Command


class FreeRooms(Command[int], answer="rooms"):
    """How many rooms are free. Asking twice does no harm, so a client may."""

    idempotent = True

    night: str


class Book(Command[int], answer="number"):
    """Book a room; the answer is its number. A client never asks twice by itself."""

    night: str
    guest: str
