"""The command line asks Twisted, with definitions of ours or of Twisted's, and without any."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from amp_asyncio import PrivateCertificate
from amp_asyncio.cli import main

from .conversations import TwistedProcess

HERE = Path(__file__).parents[1]

# Arguments of a call and what is printed; and whether that needs to know the command.
CALLS: list[tuple[list[str], str, bool]] = [
    (["Sum", "a=13", "b=-81"], "total: -68\n", False),
    (["Repeat", r"data=\x00 \xff \\"], "data: \\x00 \\xff \\\\\n", False),
    (
        ["What's in a name?", "class=1", "is_it=2", "print=3", f"{'k' * 255}=4"],
        f"class: 1\nis-it: 2\nprint: 3\n{'k' * 255}: 4\n",
        True,
    ),
    (
        ["Everything", "ListOf Integer=[1, -2]", "Boolean=true", "Decimal=1.50", "Unicode=Grüße, 🐍"],
        "Boolean: true\nUnicode: Grüße, 🐍\nDecimal: 1.50\nListOf Integer: [1, -2]\n",
        True,
    ),
    (
        ["Everything", 'AmpList=[{"number": 1}, {"number": 2, "text": "ü"}]'],
        'AmpList: [{"number": 1}, {"number": 2, "text": "ü"}]\n',
        True,
    ),
    (
        ["Everything", 'AmpList of AmpList=[{"name": "x", "rows": [{"cells": [1.5]}]}]', "--json"],
        '{"AmpList of AmpList": [{"name": "x", "rows": [{"cells": [1.5]}]}]}\n',
        True,
    ),
    (
        ["Everything", "DateTime=2024-02-29T12:00+01:00", "Float=1e3", "Path=/tmp/x"],
        "DateTime: 2024-02-29T12:00:00+01:00\nFloat: 1000.0\nPath: /tmp/x\n",
        True,
    ),
    (["Note", "text=hello"], "", True),
]


@pytest.fixture
def ask(twisted: TwistedProcess) -> Callable[..., Any]:
    """Return what runs a subcommand of the program with the address of the Twisted process."""

    async def ask(subcommand: str, *arguments: str) -> int:
        address = f"127.0.0.1:{twisted.port}"
        status = await asyncio.to_thread(main, [subcommand, address, *arguments])
        await twisted.order("accept")
        return status

    return ask


def in_any_order(text: str) -> list[str]:
    return sorted(text.splitlines())


@pytest.mark.parametrize(("arguments", "printed", "typed"), CALLS)
async def test_calls(
    ask: Any, capsys: pytest.CaptureFixture[str], arguments: list[str], printed: str, typed: bool
) -> None:
    assert await ask("call", *arguments, "--commands", "interop.definitions") == 0
    assert in_any_order(capsys.readouterr().out) == in_any_order(printed)
    if not typed:
        assert await ask("call", *arguments) == 0
        assert capsys.readouterr().out == printed


async def test_errors(ask: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert await ask("call", "Fail", "error=Declared", "text=no room") == 1
    assert capsys.readouterr().err == "amp-asyncio: DECLARED: no room\n"
    assert await ask("call", "Nope") == 1
    assert capsys.readouterr().err == "amp-asyncio: UNHANDLED: the peer has no command Nope\n"
    assert await ask("ping") == 0
    assert await ask("health") == 1
    assert "UNHANDLED" in capsys.readouterr().err


async def test_over_a_unix_socket(twisted: TwistedProcess, capsys: pytest.CaptureFixture[str]) -> None:
    call = ["call", str(twisted.path), "Sum", "a=1", "b=2"]
    assert await asyncio.to_thread(main, call) == 0
    await twisted.order("accept")
    assert capsys.readouterr().out == "total: 3\n"


SECURED = """
import sys
from twisted.internet import endpoints, protocol, reactor, ssl
from twisted.protocols import amp

class Sum(amp.Command):
    arguments = [(b"a", amp.Integer()), (b"b", amp.Integer())]
    response = [(b"total", amp.Integer())]

class Secured(amp.AMP):
    @Sum.responder
    def sum(self, a, b):
        return {"total": a + b}

    @amp.StartTLS.responder
    def start(self):
        with open(sys.argv[1], "rb") as file:
            return {"tls_localCertificate": ssl.PrivateCertificate.loadPEM(file.read())}

listening = reactor.listenTCP(0, protocol.Factory.forProtocol(Secured), interface="127.0.0.1")
print(listening.getHost().port, flush=True)
reactor.run()
"""


@pytest.mark.slow
def test_starttls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    certificate = PrivateCertificate.self_signed("127.0.0.1")
    (tmp_path / "server.pem").write_bytes(certificate.to_pem())
    command = [sys.executable, "-c", SECURED, str(tmp_path / "server.pem")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            address = f"127.0.0.1:{process.stdout.readline().strip()}"
            call = ["call", "--starttls", address, "Sum", "a=1", "b=2"]
            assert main([*call, "--cafile", str(tmp_path / "server.pem")]) == 0
            assert main([*call, "--insecure"]) == 0
            assert capsys.readouterr().out == "total: 3\n" * 2
            assert main(call) == 3
            error = capsys.readouterr().err
            assert "the certificate was not accepted: self-signed certificate" in error
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "printed", "typed"), CALLS)
async def test_with_definitions_that_are_twisteds(
    twisted: TwistedProcess, arguments: list[str], printed: str, typed: bool
) -> None:
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "amp_asyncio", "call", "--commands", "interop.definitions"],
        *[f"127.0.0.1:{twisted.port}", *arguments],
        env={**os.environ, "AMP_LIBRARY": "twisted", "PYTHONUTF8": "1"},
        cwd=HERE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    await twisted.order("accept")
    assert (in_any_order(out.decode()), err) == (in_any_order(printed), b"")
