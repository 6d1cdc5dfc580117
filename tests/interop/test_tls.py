"""StartTLS with Twisted: whoever asks, whoever opened the connection, whoever verifies whom."""

from __future__ import annotations

import pytest
from pki import issue

from amp_asyncio import ConnectionLost, OnlyOneTLS, PeerVerifyError

from .conversations import Conversation, on_unix_too, other
from .definitions import Sum
from .securing import (
    CERTIFICATES,
    PRESENTED,
    SIDES,
    STRANGER,
    TOTALS,
    assert_open,
    presented,
    secure,
    terms,
)

# With TLS 1.3 a client is done before the server rejects it, or hears of that in the same moment. In
# that moment it may not hear why.
LATE = {None, "ConnectionLost", "PeerVerifyError"}


@pytest.mark.parametrize("verifiers", [(), ("ours",), ("twisted",), SIDES])
async def test_certificates(conversation: Conversation, asker: str, verifiers: tuple[str, ...]) -> None:
    wanted = {
        side: terms(CERTIFICATES[side], *[CERTIFICATES[other(side)].certificate] * (side in verifiers))
        for side in SIDES
    }
    assert await secure(conversation, asker, wanted) is None
    await assert_open(conversation)
    # A TLS client shows its certificate only if it is asked to.
    expected = {
        side: certificate.fingerprint
        if side == conversation.server or other(side) in verifiers
        else None
        for side, certificate in CERTIFICATES.items()
    }
    assert await presented(conversation) == expected


@pytest.mark.parametrize(
    ("conversation", "asker"),
    # A Twisted that asks and is the TLS server must have a certificate.
    [("tcp-ours", "ours"), ("tcp-ours", "twisted"), ("tcp-twisted", "ours"), ("unix-twisted", "ours")],
    indirect=True,
)
async def test_anonymous(conversation: Conversation, asker: str) -> None:
    assert await secure(conversation, asker, dict.fromkeys(SIDES, terms())) is None
    await assert_open(conversation)
    shown = await presented(conversation)
    assert shown.pop(conversation.server) is not None, "a temporary one, which nobody vouches for"
    assert [*shown.values()] == [None]


@on_unix_too
async def test_issued_by_an_authority(conversation: Conversation, asker: str) -> None:
    root = issue("root.example", authority=True)
    between = issue("between.example", root, authority=True)
    ours = issue("ours.example", between)  # It comes with its chain, which Twisted's does not.
    theirs = issue("twisted.example", root, names=["twisted.example"])
    wanted = {
        side: terms(mine, root.certificate) for side, mine in zip(SIDES, (ours, theirs), strict=True)
    }
    if conversation.server == "twisted":
        wanted["ours"]["tls_serverHostname"] = "twisted.example"
    assert await secure(conversation, asker, wanted) is None
    await assert_open(conversation)
    assert await presented(conversation) == {"ours": ours.fingerprint, "twisted": theirs.fingerprint}


@pytest.mark.parametrize("rejecter", SIDES)
async def test_a_certificate_that_is_not_trusted(
    conversation: Conversation, asker: str, rejecter: str
) -> None:
    wanted = {
        rejecter: terms(CERTIFICATES[rejecter], STRANGER.certificate),
        other(rejecter): terms(CERTIFICATES[other(rejecter)]),
    }
    error = await secure(conversation, asker, wanted)
    if asker == "twisted":
        assert error is None, "it has only begun"
    elif rejecter == conversation.server == "twisted":
        assert error in LATE
    else:
        assert error == "PeerVerifyError"
    await assert_rejected(conversation, rejecter)


async def test_no_certificate_where_one_is_wanted(conversation: Conversation, asker: str) -> None:
    server = conversation.server
    wanted = {server: terms(CERTIFICATES[server], STRANGER.certificate), other(server): terms()}
    await secure(conversation, asker, wanted)
    await assert_rejected(conversation, server)


async def assert_rejected(conversation: Conversation, rejecter: str) -> None:
    with pytest.raises(ConnectionLost) as caught:
        await conversation.peer.callRemote(Sum, a=1, b=1)
    if not rejecter == conversation.server == "twisted":
        assert isinstance(caught.value.__cause__, PeerVerifyError)
    # What Twisted calls it depends on whether it was told why.
    assert await conversation.play("twisted", "question") in {"Error", "PeerVerifyError"}


@on_unix_too
async def test_refused_by_twisted(conversation: Conversation) -> None:
    await conversation.play("twisted", "prepare", None, 3)
    assert await conversation.play("ours", "secure", terms(), 3) == "Declared"
    assert await conversation.play("ours", "answers") == TOTALS * 2
    assert await conversation.play("twisted", "answers") == TOTALS
    await assert_open(conversation)
    assert await presented(conversation) == dict.fromkeys(SIDES)
    # It may change its mind.
    assert await secure(conversation, "ours", PRESENTED) is None
    await assert_open(conversation)
    assert (await presented(conversation))[conversation.server] is not None


async def test_refused_by_us(conversation: Conversation) -> None:
    assert await conversation.play("twisted", "secure", terms()) == "Declared"
    # This is all: a Twisted that asked sends nothing more before TLS has started, not even answers.
    assert conversation.peer.peerCertificate is None


@on_unix_too
async def test_questions_before_and_meanwhile(conversation: Conversation, asker: str) -> None:
    """Both sides ask: in the clear, behind `StartTLS` or its answer, and during the handshake."""
    assert await secure(conversation, asker, PRESENTED, 3) is None
    assert await conversation.play(asker, "answers") == TOTALS * 2
    assert await conversation.play(other(asker), "answers") == [*TOTALS, 0, 0, 0]
    await assert_open(conversation)


async def test_only_one(conversation: Conversation) -> None:
    assert await secure(conversation, "ours", PRESENTED) is None
    with pytest.raises(OnlyOneTLS):
        await secure(conversation, "ours", PRESENTED)
    await assert_open(conversation)
