"""How to test a service: a small shop, and its tests with pytest-asyncio.

The tests use a real server and a real client on a free port of this machine. That is as fast as a
mock, and tests what will run. A responder is also a plain method, which a test can call directly.

Run it: python -m pytest examples/test_service.py        (needs pytest and pytest-asyncio)
"""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from amp_asyncio import AMP, Command, Integer, InvalidSignature, Unicode, connect, serve

# --- the service, normally a module of its own ---


class SoldOut(Exception):
    pass


class Buy(Command):
    arguments = [(b"item", Unicode()), (b"count", Integer())]
    response = [(b"left", Integer())]
    errors = {SoldOut: b"SOLD_OUT"}


class Shop(AMP):
    def __init__(self, stock: dict[str, int]) -> None:
        super().__init__()
        self.stock = stock

    @Buy.responder
    async def buy(self, item: str, count: int) -> dict[str, int]:
        left = self.stock.get(item, 0) - count
        if left < 0:
            raise SoldOut(f"fewer than {count} of {item}")
        self.stock[item] = left
        return {"left": left}


# --- its tests ---

pytestmark = pytest.mark.asyncio


@pytest.fixture
def stock() -> dict[str, int]:
    return {"apple": 3}


@pytest_asyncio.fixture
async def address(stock: dict[str, int]) -> AsyncIterator[tuple[str, int]]:
    """The address of a shop with that stock, open for one test."""
    async with serve(lambda: Shop(stock), "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()


@pytest_asyncio.fixture
async def customer(address: tuple[str, int]) -> AsyncIterator[AMP]:
    """A client of that shop."""
    async with connect(*address) as amp:
        yield amp


async def test_buying_takes_from_the_stock(customer: AMP, stock: dict[str, int]) -> None:
    assert await customer.callRemote(Buy, item="apple", count=2) == {"left": 1}
    assert stock == {"apple": 1}


async def test_a_missing_item_is_sold_out(customer: AMP, stock: dict[str, int]) -> None:
    with pytest.raises(SoldOut, match="fewer than 4 of apple"):
        await customer.callRemote(Buy, item="apple", count=4)
    assert stock == {"apple": 3}


async def test_customers_share_the_stock(address: tuple[str, int]) -> None:
    async with connect(*address) as one, connect(*address) as other:
        buying = [amp.callRemote(Buy, item="apple", count=2) for amp in (one, other)]
        outcomes = await asyncio.gather(*buying, return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["SoldOut", "dict"]


async def test_a_mistake_in_the_question_is_not_sent(customer: AMP) -> None:
    with pytest.raises(InvalidSignature, match="missing count"):
        customer.callRemote(Buy, item="apple")


async def test_a_responder_is_a_method() -> None:
    assert await Shop({"apple": 1}).buy(item="apple", count=1) == {"left": 0}
