"""How either side of a conversation starts TLS, with which certificates, and what it is seen by."""

from __future__ import annotations

from typing import Any

from amp_asyncio import Certificate, PrivateCertificate

from .conversations import Conversation, other

CERTIFICATES = {
    "ours": PrivateCertificate.self_signed("ours.example"),
    "twisted": PrivateCertificate.self_signed("twisted.example"),
}


SIDES = tuple(CERTIFICATES)


STRANGER = PrivateCertificate.self_signed("stranger.example")


# The answers to three questions that were asked together.
TOTALS = [0, 2, 4]


def terms(
    certificate: PrivateCertificate | None = None, *authorities: Certificate, **ours: Any
) -> dict[str, Any]:
    """Return what one side wants, as it goes into an order."""
    return {
        "certificate": certificate and certificate.to_pem().decode(),
        "authorities": [authority.to_pem().decode() for authority in authorities],
        **ours,
    }


PRESENTED = {side: terms(certificate) for side, certificate in CERTIFICATES.items()}


async def secure(
    conversation: Conversation, asker: str, wanted: dict[str, dict[str, Any]], curiosity: int = 0
) -> Any:
    """Have a side ask for TLS, each on its own terms; return the error that it ends with.

    Twisted is the TLS server where it is the server, so our side must not go by who asks.
    """
    server_side = conversation.server == "ours"
    if server_side is (asker == "ours"):
        wanted = wanted | {"ours": wanted["ours"] | {"tls_serverSide": server_side}}
    await conversation.play(other(asker), "prepare", wanted[other(asker)], curiosity)
    return await conversation.play(asker, "secure", wanted[asker], curiosity)


async def presented(conversation: Conversation) -> dict[str, Any]:
    """Return the certificates that both sides say the other one has presented."""
    return {other(side): await conversation.play(side, "certificate") for side in SIDES}


async def assert_open(conversation: Conversation) -> None:
    assert [await conversation.play(side, "question") for side in SIDES] == [2, 2]
