"""Offers and StartTLS, in any order: what was said in the clear does not count in TLS.

In memory, TLS needs asyncio's own loop, so each example has one.
"""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support import Patient, Sum, Wait, turns

from amp_asyncio import AmpBox, StartTLS
from amp_asyncio.testing import pair


class Noting(Patient):
    """Keeps the boxes that it sends."""

    extensions = True

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[AmpBox] = []

    def sendBox(self, box: AmpBox) -> None:
        self.sent.append(AmpBox(box))
        super().sendBox(box)


Phases = tuple[list[AmpBox], list[AmpBox]]


def phases(client: list[AmpBox], server: list[AmpBox]) -> tuple[Phases, Phases]:
    """Return what each has sent in the clear, and in TLS: after StartTLS, or after its answer."""
    asked = next(at for at, box in enumerate(client) if box.get(b"_command") == b"StartTLS")
    tag = client[asked][b"_ask"]
    answered = next(at for at, box in enumerate(server) if box.get(b"_answer") == tag)
    return (client[:asked], client[asked + 1 :]), (server[:answered], server[answered + 1 :])


async def knows(asking: Patient, answering: Patient) -> None:
    """See that one side tells the other that it has cancelled a call."""
    waiting = asking.callRemote(Wait, name="cancelled")
    await answering.started.get()
    waiting.cancel()
    await asyncio.wait([answering.gate("cancelled")])
    assert answering.gates.pop("cancelled").cancelled()


STEPS = st.lists(st.sampled_from(["client asks", "server asks", "client cancels", "turn"]), max_size=6)


@given(STEPS, STEPS, STEPS)
@settings(max_examples=10, deadline=None)
def test_two_of_ours_learn_of_each_other_again(
    before: list[str], meanwhile: list[str], after: list[str]
) -> None:
    """Questions are on their way, or wait, when TLS starts."""

    async def run() -> None:
        async with asyncio.timeout(60), pair(Noting, Noting) as (server, client):
            asked: list[asyncio.Future[Any]] = []

            async def take(steps: list[str]) -> None:
                for step in steps:
                    if step == "turn":
                        await asyncio.sleep(0)
                        continue
                    asking = server if step == "server asks" else client
                    future = asking.callRemote(Sum, a=1, b=2)
                    if step == "client cancels":
                        future.cancel()
                    else:
                        asked.append(future)

            await take(before)
            securing = client.callRemote(StartTLS)
            await take(meanwhile)
            await securing
            await take(after)
            assert await asyncio.gather(*asked) == [{"total": 3}] * len(asked)
            for side in (client, server):
                assert await side.callRemote(Sum, a=1, b=2) == {"total": 3}
            await turns()
            await knows(client, server)
            await knows(server, client)
            check(client.sent, server.sent)

    def check(client: list[AmpBox], server: list[AmpBox]) -> None:
        ours, theirs = phases(client, server)
        for mine, others in zip((*ours, *theirs), (*theirs, *ours), strict=True):
            questions = [box for box in mine if b"_ask" in box]
            offers = [(box[b"_ask"], box[b"_offer"].split()[0]) for box in mine if b"_offer" in box]
            assert offers == [(box[b"_ask"], box[b"_ask"]) for box in questions[:1]]
            accepted = [box[b"ask"] for box in mine if box.get(b"_command") == b"_accept"]
            assert accepted in ([], [box[b"_ask"] for box in others if b"_offer" in box])
            if any(box.get(b"_command") == b"_cancel" for box in mine):
                assert any(b"_offer" in box or box.get(b"_command") == b"_accept" for box in others)

    asyncio.run(run())


class Scripted(Patient):
    """A peer that says what the test wants: it takes no part in the negotiation by itself.

    Each reply is to an offer, and to StartTLS: `accept 0` accepts the first offer, `offer x` offers.
    """

    extensions = False

    def __init__(self) -> None:
        super().__init__()
        self.replies: dict[str, list[str]] = {}
        self.offers: list[bytes] = []
        self.left = False

    def ampBoxReceived(self, box: AmpBox) -> None:
        command = box.get(b"_command", b"").decode()
        if b"_offer" in box:
            self.offers.append(box[b"_ask"])
            self.reply(f"offer {len(self.offers) - 1}")
        self.reply(command)
        if command == "_leave":
            self.left = True
            self.sendBox(box)
        elif command != "_accept" and not box.get(b"_answer", b"").startswith(b"made_up"):
            super().ampBoxReceived(box)

    def reply(self, to: str) -> None:
        for what, _, which in (reply.partition(" ") for reply in self.replies.get(to, [])):
            if what == "accept":
                tag = self.offers[int(which)]
                self.sendBox(AmpBox(_command=b"_accept", ask=tag, names=b"leave"))
            else:
                tag = b"made_up_%b" % which.encode()
                offer = tag + b" leave"
                self.sendBox(AmpBox(_command=b"Sum", _ask=tag, a=b"1", b=b"2", _offer=offer))


REPLIES = st.sampled_from([[], ["accept 0"], ["offer x"], ["accept 0", "offer x"]])


@given(
    asks_in_the_clear=st.booleans(),
    in_the_clear=REPLIES,
    to_starttls=REPLIES,
    waits_for_tls=st.booleans(),
    in_tls=st.sampled_from(
        [
            [],
            ["accept 0"],
            ["accept 1"],
            ["offer y"],
            ["accept 0", "accept 1"],
            ["accept 0", "offer y"],
            ["accept 1", "offer y"],
        ]
    ),
    pauses=st.lists(st.integers(0, 3), min_size=2, max_size=2),
)
@settings(max_examples=25, deadline=None)
def test_what_is_accepted_counts_only_in_the_phase_of_its_offer(
    asks_in_the_clear: bool,
    in_the_clear: list[str],
    to_starttls: list[str],
    waits_for_tls: bool,
    in_tls: list[str],
    pauses: list[int],
) -> None:
    async def run() -> None:
        async with asyncio.timeout(60), pair(Scripted, Patient) as (peer, client):
            asking = None
            if asks_in_the_clear:
                peer.replies = {"offer 0": in_the_clear, "StartTLS": to_starttls, "offer 1": in_tls}
                asking = client.callRemote(Sum, a=1, b=2)
                for _ in range(pauses[0]):
                    await asyncio.sleep(0)
            else:
                # There is no offer in the clear, so that of the TLS phase is the first one.
                peer.replies = {"offer 0": [reply.replace("1", "0") for reply in in_tls]}
            securing = client.callRemote(StartTLS)
            for _ in range(pauses[1]):
                await asyncio.sleep(0)
            first = client.callRemote(Sum, a=1, b=2) if waits_for_tls else None
            await securing
            assert await (first or client.callRemote(Sum, a=1, b=2)) == {"total": 3}
            if asking is not None:
                assert await asking == {"total": 3}
            assert len(peer.offers) == 1 + asks_in_the_clear
            counts = {"offer y", "accept 1" if asks_in_the_clear else "accept 0"}
            replies = peer.replies[f"offer {len(peer.offers) - 1}"]
            # Who is known is told that the connection is about to be closed.
            await client.close(timeout=None)
            await peer.wait_closed()
            assert peer.left == (not counts.isdisjoint(replies))

    asyncio.run(run())
