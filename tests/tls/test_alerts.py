"""Alerts: a peer whose certificate is rejected learns why."""

from __future__ import annotations

from typing import Any

import pytest
from support import AMP, Math, Sum, cause_of_loss, connected, listening, reach

from amp_asyncio import ConnectionLost, PeerVerifyError, PrivateCertificate, StartTLS
from amp_asyncio.testing import pair
from amp_asyncio.tls.certificates import make_ssl_context

OURS = PrivateCertificate.self_signed("localhost")
STRANGER = PrivateCertificate.self_signed("stranger")


class Strict(Math):
    terms: dict[str, Any] = {
        "tls_localCertificate": OURS,
        "tls_verifyAuthorities": [OURS.certificate],
    }

    @StartTLS.responder
    def start(self) -> dict[str, Any]:
        return self.terms


@pytest.mark.parametrize("own", [None, STRANGER], ids=["no certificate", "a wrong one"])
async def test_a_client_that_is_rejected(own: PrivateCertificate | None) -> None:
    """With TLS 1.3, its own handshake is done before the server looks at its certificate."""
    async with connected(Strict, AMP) as (server, client):
        terms = {"tls_localCertificate": own, "tls_verifyAuthorities": [OURS.certificate]}
        assert await client.callRemote(StartTLS, **terms) == {}
        with pytest.raises(ConnectionLost) as caught:
            await client.callRemote(Sum, a=1, b=1)
        assert isinstance(caught.value.__cause__, PeerVerifyError)
        await server.wait_closed()
        assert isinstance(await cause_of_loss(server), PeerVerifyError)


async def test_a_server_that_is_rejected() -> None:
    class Wrong(Strict):
        terms = {"tls_localCertificate": STRANGER}

    async with connected(Wrong, AMP) as (server, client):
        with pytest.raises(PeerVerifyError):
            await client.callRemote(StartTLS, tls_verifyAuthorities=[OURS.certificate])
        await server.wait_closed()
        assert isinstance(await cause_of_loss(server), PeerVerifyError)


async def test_a_client_that_a_server_with_tls_rejects() -> None:
    context = OURS.ssl_context(server_side=True, authorities=[OURS.certificate])
    wrong = make_ssl_context(STRANGER, server_side=False, authorities=[OURS.certificate])
    async with listening(Math, unix=False, ssl=context) as server:
        with pytest.raises(ConnectionLost) as caught:
            async with reach(server, AMP, ssl=wrong, server_hostname="localhost") as client:
                await client.callRemote(Sum, a=1, b=1)
        assert isinstance(caught.value.__cause__, PeerVerifyError)


async def test_where_there_is_no_socket() -> None:
    async with pair(Strict, AMP) as (server, client):
        with pytest.raises((TypeError, PeerVerifyError, ConnectionLost)):
            terms = {"tls_localCertificate": STRANGER, "tls_verifyAuthorities": [OURS.certificate]}
            await client.callRemote(StartTLS, **terms)
            await client.callRemote(Sum, a=1, b=1)
        server.abort()
