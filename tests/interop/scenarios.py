"""What one side of a connection does to the other: each function asks, and returns what came of it.

Our side and Twisted's execute the same source, each with its own library. The results are JSON's.
"""

from __future__ import annotations

import random
from hashlib import sha256
from typing import Any

from proc import open_descriptors

from . import definitions, streams
from .definitions import (
    ECHO,
    KEY,
    KINDS,
    PORTED,
    CountDescriptors,
    Countdown,
    Declared,
    Everything,
    Lend,
    Look,
    LookAtAll,
    Measure,
    Names,
    NoRoom,
    Note,
    Notes,
    Peer,
    Repeat,
    RepeatBig,
    Return,
    Secure,
    Stay,
    Sum,
    SwitchToBytes,
    content,
    described,
    file_with,
    ported_commands,
    samples,
    stay,
)
from .library import Lost, amp, attempt, fingerprint, reading_slowly, start, tls_arguments


async def state(peer: Peer) -> str:
    """Tell whether the connection is open or lost."""
    try:
        await peer.callRemote(Sum, a=1, b=2)
    except Lost:
        return "lost"
    return "open"


async def echo(peer: Peer, kind: str) -> Any:
    """Send each value of one kind there and back."""
    answers = [
        await peer.callRemote(ECHO[kind], kind=kind, case=case, value=value)
        for case, value in enumerate(KINDS[kind][1])
    ]
    return [described(answer["value"]) for answer in answers]


async def big(peer: Peer, size: int) -> bool:
    """Send so many bytes there and back."""
    data = random.Random(size).randbytes(size)
    return bool((await peer.callRemote(RepeatBig, data=data))["data"] == data)


async def measured(peer: Peer, size: int) -> bool:
    """Send so many bytes, counted from 0 where this is Twisted's side."""
    data = random.Random(size).randbytes(size)
    answer = await peer.callRemote(Measure, data=data)
    return bool(answer["digest"] == sha256(data).hexdigest())


async def stays(peer: Peer, number: int, size: int) -> Any:
    """Ask for a stay, and tell what comes back, or the text of the error."""
    try:
        answer = await peer.callRemote(Stay, **stay(number, size))
    except NoRoom as error:
        return str(error)
    assert len(answer["photo"]) == size
    return described({**answer, "photo": None})


async def everything(peer: Peer, present: list[str], none: list[str]) -> Any:
    """Send values of these kinds in one box, and None for those."""
    values = {kind: KINDS[kind][1][-1] for kind in present}
    return described(await peer.callRemote(Everything, **values, **dict.fromkeys(none)))


async def names(peer: Peer) -> Any:
    return await peer.callRemote(Names, **{"Class": 1, "is_it": 2, "Print": 3, KEY: 4})


async def error(peer: Peer, command: str, arguments: dict[str, str]) -> Any:
    """Tell which error a command is answered with, and what becomes of the connection."""
    try:
        await peer.callRemote(getattr(definitions, command), **arguments)
    except Exception as error:
        return await _outcome(peer, error)


async def by_name(peer: Peer, command: str, arguments: dict[str, str]) -> Any:
    """Ask without a definition, and tell what the answer is."""
    values = {name: value.encode() for name, value in arguments.items()}
    try:
        answer = await peer.callRemoteString(command.encode(), **values)
    except Exception as error:
        return await _outcome(peer, error)
    assert type(answer) is amp.AmpBox
    return {name.decode(): value.decode() for name, value in answer.items()}


async def _outcome(peer: Peer, error: Exception) -> list[str]:
    # The text of this one is not the same in both.
    text = "" if isinstance(error, amp.UnhandledCommand) else str(error)
    return [type(error).__name__, text, await state(peer)]


async def notes(peer: Peer, count: int) -> Any:
    """Ask what wants no answer, then what shows that it was done."""
    for number in range(count):
        peer.callRemote(Note, text=str(number))
    return (await peer.callRemote(Notes))["texts"]


async def countdowns(peer: Peer, *lengths: int) -> Any:
    """Ask several at once, each of which takes so many turns; tell in which order they end."""
    order: list[int] = []

    async def count_down(n: int) -> None:
        await peer.callRemote(Countdown, n=n)
        order.append(n)

    for countdown in [start(count_down(n)) for n in lengths]:
        await countdown
    return [*order, peer.ticks]


async def sums(peer: Peer, count: int) -> Any:
    """Ask so many questions before the first answer; return what is wrong with those."""
    asked = [peer.callRemote(Sum, a=n, b=n) for n in range(count)]
    totals = [(await answer)["total"] for answer in asked]
    return [(n, total) for n, total in enumerate(totals) if total != 2 * n]


async def flood(peer: Peer, count: int) -> Any:
    """Do the same with the largest values that there can be."""
    asked = [peer.callRemote(Repeat, data=bytes([n % 256]) * 0xFFFF) for n in range(count)]
    answers = [(await answer)["data"] for answer in asked]
    return [n for n, data in enumerate(answers) if data != bytes([n % 256]) * 0xFFFF]


async def too_long(peer: Peer) -> Any:
    """Try to send a value with one byte too many."""
    try:
        await peer.callRemote(Repeat, data=bytes(0x10000))
    except amp.TooLong as error:
        return [error.isKey, error.isLocal, error.keyName == b"data", await state(peer)]


async def ported(peer: Peer, module: str) -> Any:
    """Ask all commands of a module that was written for Twisted."""
    answers = {
        command.__name__: described(await peer.callRemote(command, **samples(command.arguments)))
        for command in ported_commands(PORTED[module])
    }
    return [answers, await state(peer)]


async def stream(peer: Peer, count: int) -> Any:
    """Call a coroutine function that was written for Twisted, and asks the commands of its module."""
    module: Any = PORTED["twisted.trial._dist.stream"]
    data = samples(module.StreamWrite.arguments)["data"]
    return await module.stream(peer, module.chunk(data * count, len(data)))


async def prepare(peer: Peer, terms: dict[str, Any] | None, curiosity: int = 0) -> None:
    """Say how `Secure` is to be answered, and how many questions are to be asked meanwhile."""
    peer.terms, peer.curiosity = terms, curiosity


async def secure(peer: Peer, terms: dict[str, Any], curiosity: int = 0) -> Any:
    """Start TLS, with so many questions before and behind it; tell which error that ends with.

    A peer of ours knows then that the handshake is over, and Twisted's only that it has begun.
    """
    peer.ask(curiosity)
    try:
        with reading_slowly(peer):
            secured = peer.callRemote(Secure, **tls_arguments(**terms))
            peer.ask(curiosity)
            await secured
    except (Declared, *Lost) as error:
        return type(error).__name__


async def switch(peer: Peer, kind: str, allowed: bool, curiosity: int = 0) -> Any:
    """Switch to a kind of `streams`, with so many questions before and behind it."""
    peer.ask(curiosity)
    switched = peer.callRemote(SwitchToBytes, streams.factory(kind), kind=kind, allowed=allowed)
    peer.ask(curiosity)
    try:
        await switched
    except Declared as error:
        return type(error).__name__


async def answers(peer: Peer) -> Any:
    """Tell what came of the questions that `ask` asked: the totals, or the names of the errors."""
    if peer.asking is not None:
        await peer.asking
    questions, peer.questions = peer.questions, ()
    return [await _total(question) for question in questions]


async def question(peer: Peer) -> Any:
    """Ask one question, and tell what came of it."""
    return await _total(attempt(peer.callRemote, Sum, a=1, b=1))


async def _total(question: Any) -> Any:
    try:
        return (await question)["total"]
    except (amp.ProtocolSwitched, *Lost) as error:
        return type(error).__name__


async def certificate(peer: Peer) -> Any:
    """Tell the fingerprint of the certificate that the other side presented."""
    return fingerprint(peer)


async def exchange(peer: Any, seed: int, size: int) -> Any:
    """Send so many bytes over what was switched to, and receive as many at the same time.

    Returns the SHA-256 of all that was sent, and of all that was received.
    """
    data = random.Random(seed).randbytes(size)
    sending = start(peer.innerProtocol.send(data))
    received = await peer.innerProtocol.receive(len(streams.GREETING) + size)
    await sending
    return [sha256(streams.GREETING + data).hexdigest(), sha256(received).hexdigest()]


async def leave(peer: Any) -> None:
    """Close what was switched to."""
    peer.innerProtocol.close()
    await peer.innerProtocol.until_lost()


async def be_left(peer: Any) -> None:
    """Wait until the other side has closed it."""
    await peer.innerProtocol.until_lost()


async def look(peer: Peer, count: int) -> Any:
    """Send so many descriptors, one after the other; tell how many more are open at either end."""
    before = await _open_descriptors(peer)
    with file_with(b"looked at") as file:
        for _ in range(count):
            answer = await peer.callRemote(Look, file=file.fileno())
            assert answer == {"content": b"looked at"}
    return [now - then for now, then in zip(await _open_descriptors(peer), before, strict=True)]


async def borrow(peer: Peer, count: int, each: int = 1) -> Any:
    """Do the same with descriptors that come in answers, so many in each."""
    before = await _open_descriptors(peer)
    for number in range(count):
        contents = [b"%d of %d" % (n, number) for n in range(each)]
        files = (await peer.callRemote(Lend, contents=contents))["files"]
        assert [content(item["file"]) for item in files] == contents
        await peer.callRemote(Return)
    return [now - then for now, then in zip(await _open_descriptors(peer), before, strict=True)]


async def _open_descriptors(peer: Peer) -> list[int]:
    return [(await peer.callRemote(CountDescriptors))["count"], open_descriptors()]


async def look_at_all(peer: Peer, count: int) -> Any:
    """Send several descriptors in one box."""
    files = [file_with(b"%d" % number) for number in range(count)]
    first, *others, last = [file.fileno() for file in files]
    listed = [{"name": "", "file": descriptor} for descriptor in others]
    answer = await peer.callRemote(LookAtAll, first=first, files=listed, last=last)
    for file in files:
        file.close()
    return [int(text) for text in answer["contents"]]


async def look_interleaved(peer: Peer, count: int, size: int = 0) -> Any:
    """Ask with and without descriptors, all at once, with so many bytes of other boxes between them."""
    files = [file_with(b"%d" % number) for number in range(count)]
    asked = []
    for number, file in enumerate(files):
        pieces = [min(0xFFFF, size - begin) for begin in range(0, size, 0xFFFF)]
        asked += [peer.callRemote(Repeat, data=bytes(piece)) for piece in pieces]
        asked.append(peer.callRemote(Look, file=file.fileno()))
        asked.append(peer.callRemote(Sum, a=number, b=0))
    answers = [await answer for answer in asked]
    for file in files:
        file.close()
    contents = [int(answer["content"]) for answer in answers if "content" in answer]
    return [contents, [answer["total"] for answer in answers if "total" in answer]]


async def unasked(peer: Peer, count: int) -> Any:
    """Send descriptors that no box names, each with a box that does not; return what became of it."""
    outcome = "open"
    with file_with(b"") as file:
        for _ in range(count):
            amp.Descriptor().toStringProto(file.fileno(), peer)
            if (outcome := await state(peer)) == "lost":
                break
    return outcome
