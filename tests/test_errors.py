"""Errors: what they are, what they say, and that what a peer sent stays short in them."""

from __future__ import annotations

import copy
import pickle

import pytest

from amp_asyncio import (
    AmpError,
    BadLocalReturn,
    ConnectionLost,
    MalformedAmpBox,
    RemoteAmpError,
    TooLong,
    UnknownRemoteError,
    errors,
)


@pytest.mark.parametrize("name", errors.__all__)
def test_all_are_amp_errors(name: str) -> None:
    assert issubclass(getattr(errors, name), AmpError)


def test_some_are_what_others_catch() -> None:
    assert issubclass(ConnectionLost, ConnectionError)
    assert issubclass(MalformedAmpBox, ValueError)
    assert issubclass(UnknownRemoteError, RemoteAmpError)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (TooLong(True, True, b"k" * 256), "local key too long: 256 bytes, the limit is 255"),
        (
            TooLong(False, True, b"v" * 65536, b"k"),
            "local value of b'k' too long: 65536 bytes, the limit is 65535",
        ),
        (
            TooLong(False, False, b"v" * 65536, b"k"),
            "remote value of b'k' too long: 65536 bytes, the limit is 65535",
        ),
        (
            TooLong(True, False, b"\x01\x02abc"),
            "remote key too long: 258 bytes, the limit is 255; received b'\\x01\\x02abc'",
        ),
        (BadLocalReturn("f returned 1", ValueError("no")), "f returned 1: ValueError: no"),
        (RemoteAmpError(b"CODE", "text"), "Code<CODE>: text"),
        (RemoteAmpError(b"CODE", "text", True, KeyError()), "Code<CODE> (local): text"),
        (RemoteAmpError(b"\xff", b"\xfe"), "Code<\\xff>: b'\\xfe'"),
        (UnknownRemoteError("text"), "Code<UNKNOWN>: text"),
    ],
)
def test_message(error: AmpError, text: str) -> None:
    assert str(error) == text
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(twin) is type(error)
        assert str(twin) == text


@pytest.mark.parametrize(
    ("data", "like"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "a TLS ClientHello"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "TLS"),
        (b"GET / HTTP/1.1\r\n", "HTTP"),
        (b"POST /x HTTP/1.1\r\n", "HTTP"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP"),
        (b"HTTP/1.1 400 Bad Request\r\n", "HTTP"),
    ],
)
def test_what_it_looks_like(data: bytes, like: str) -> None:
    assert str(TooLong(True, False, data)).endswith(f" (this looks like {like})")


@pytest.mark.parametrize("data", [b"SSH-2.0-OpenSSH_9.6\r\n", b"GETTING", b"get / ", b"\x16\x02", b""])
def test_what_looks_like_nothing_known(data: bytes) -> None:
    assert errors.resemblance(data) == ""
    assert "looks like" not in str(TooLong(True, False, data))


def test_foreign_bytes_are_shortened() -> None:
    error = TooLong(True, False, b"\xff" * 65536)
    assert len(str(error)) < 250
    assert repr(error) == str(error)


def test_attributes() -> None:
    long = TooLong(False, True, b"v", b"k")
    assert (long.isKey, long.isLocal, long.value, long.keyName) == (False, True, b"v", b"k")
    assert TooLong(True, False, b"k").keyName is None
    cause = KeyError("x")
    bad = BadLocalReturn("text", cause)
    assert (bad.message, bad.enclosed) == ("text", cause)
    remote = RemoteAmpError(b"CODE", "text", True, cause)
    assert (remote.errorCode, remote.description) == (b"CODE", "text")
    assert (remote.fatal, remote.local) == (True, cause)
    plain = RemoteAmpError(b"CODE", "text")
    assert (plain.fatal, plain.local) == (False, None)
    unknown = UnknownRemoteError("text")
    assert (unknown.errorCode, unknown.description, unknown.args) == (b"UNKNOWN", "text", ("text",))
