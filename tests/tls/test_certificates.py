"""Certificates: what is read, made and written, what never shows, and whom a real handshake trusts."""

from __future__ import annotations

import hashlib
import os
import re
import ssl
import stat
import tempfile
import traceback
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from pki import issue

from amp_asyncio import Certificate, PrivateCertificate
from amp_asyncio.tls.certificates import make_ssl_context

ROOT = issue("Root", authority=True)
INTERMEDIATE = issue("Intermediate", ROOT, authority=True)
SERVER = issue("server", INTERMEDIATE, names=["server.example", "*.wild.example", "127.0.0.1", "::1"])
CLIENT = issue("client", INTERMEDIATE)
STRANGER = PrivateCertificate.self_signed("stranger")
PASSWORD = "pässword"


def key_pem(
    certificate: PrivateCertificate,
    format_: PrivateFormat = PrivateFormat.PKCS8,
    password: str | None = None,
) -> bytes:
    encryption: KeySerializationEncryption = NoEncryption()
    if password is not None:
        encryption = BestAvailableEncryption(password.encode())
    return certificate.private_key.private_bytes(Encoding.PEM, format_, encryption)


def key_der(certificate: PrivateCertificate, password: str | None = None) -> bytes:
    encryption: KeySerializationEncryption = NoEncryption()
    if password is not None:
        encryption = BestAvailableEncryption(password.encode())
    return certificate.private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, encryption)


def certificates_pem(certificate: PrivateCertificate) -> bytes:
    return b"".join(one.to_pem() for one in (certificate.certificate, *certificate.chain))


SERVER_CHAIN = certificates_pem(SERVER)
SERVER_KEY = key_pem(SERVER)
TRADITIONAL = PrivateFormat.TraditionalOpenSSL


def secrets_of(certificate: PrivateCertificate) -> list[str]:
    """Everything that a text must not have in it: the key's base64, its bytes, its number."""
    assert isinstance(certificate.private_key, ec.EllipticCurvePrivateKey)
    number = certificate.private_key.private_numbers().private_value
    base64 = [
        line
        for format_ in (PrivateFormat.PKCS8, TRADITIONAL)
        for line in key_pem(certificate, format_).decode().splitlines()
        if "-----" not in line
    ]
    in_bytes = number.to_bytes(32, "big")
    return [*base64, str(number), f"{number:x}", repr(in_bytes)[2:-1], in_bytes.hex(":")]


def whole_text(error: BaseException) -> str:
    """What any report of an error would show."""
    return "".join(traceback.format_exception(error)) + repr(error) + str(vars(error))


# Reading


@pytest.mark.parametrize("of_file", [None, str, Path], ids=["bytes", "str", "Path"])
def test_a_source_is_bytes_or_a_path(of_file: Callable[[Path], Any] | None, tmp_path: Path) -> None:
    def source(name: str, data: bytes) -> Any:
        if of_file is None:
            return data
        (tmp_path / name).write_bytes(data)
        return of_file(tmp_path / name)

    pem = source("certificate.pem", SERVER_CHAIN)
    der = source("certificate.der", SERVER.to_der())
    key = source("key.pem", SERVER_KEY)
    assert Certificate.from_pem(pem) == SERVER
    assert Certificate.from_der(der) == SERVER
    assert Certificate.list_from_pem(pem) == [SERVER, INTERMEDIATE]
    both = source("both.pem", SERVER.to_pem())
    for private in (
        PrivateCertificate.from_pem(both),
        PrivateCertificate.from_pem(pem, key=key),
        PrivateCertificate.from_pem(both, key=key),
        PrivateCertificate.from_der(der, key=source("key.der", key_der(SERVER))),
    ):
        assert private == SERVER
        assert private.private_key.public_key() == SERVER.private_key.public_key()


def test_a_pipe_is_read_but_once() -> None:
    reading, writing = os.pipe()
    with open(reading, "rb"), open(writing, "wb") as file:
        file.write(SERVER.to_pem())
        file.close()
        assert PrivateCertificate.from_pem(f"/dev/fd/{reading}").chain == (INTERMEDIATE,)


def test_what_a_certificate_says() -> None:
    certificate = Certificate.from_pem(SERVER_CHAIN)
    assert type(certificate) is Certificate
    assert certificate.subject == "CN=server"
    assert certificate.issuer == "CN=Intermediate"
    assert certificate.common_name == "server"
    assert certificate.names == ("server.example", "*.wild.example", "127.0.0.1", "::1")
    assert certificate.fingerprint == hashlib.sha256(certificate.to_der()).hexdigest()
    assert re.fullmatch("[0-9a-f]{64}", certificate.fingerprint)
    assert certificate.not_before.tzinfo is UTC
    assert certificate.not_before < datetime.now(UTC) < certificate.not_after
    assert certificate.not_after - certificate.not_before == timedelta(hours=2)
    assert not certificate.is_expired
    assert issue("old", ends=timedelta(minutes=-1)).is_expired
    assert Certificate.from_pem(certificate.to_pem()) == certificate
    assert Certificate.from_der(certificate.to_der()) == certificate


def test_names_of_other_kinds_are_left_out() -> None:
    others = x509.SubjectAlternativeName(
        [
            x509.RFC822Name("a@b.example"),
            x509.DNSName("b.example"),
            x509.UniformResourceIdentifier("x:y"),
        ]
    )
    assert issue("b", extensions=[others]).names == ("b.example",)
    assert issue("b").names == ()


def test_the_most_specific_common_name() -> None:
    def with_subject(*attributes: tuple[x509.ObjectIdentifier, str]) -> Certificate:
        subject = x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes])
        key = ed25519.Ed25519PrivateKey.generate()
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(subject, subject, key.public_key(), 1, now, now)
        return Certificate(builder.sign(key, None))

    organisation, name = x509.NameOID.ORGANIZATION_NAME, x509.NameOID.COMMON_NAME
    assert with_subject((organisation, "O")).common_name is None
    several = with_subject((name, "users"), (organisation, "O"), (name, "alice"))
    assert several.common_name == "alice"
    assert several.subject == "CN=alice,O=O,CN=users"


def test_equal_if_the_der_is() -> None:
    private, alone = SERVER, Certificate.from_der(SERVER.to_der())
    assert alone == private
    assert private == alone
    assert hash(alone) == hash(private)
    assert {alone, private, private.certificate} == {private}
    assert alone != CLIENT
    assert alone != alone.to_der()
    assert issue("same") != issue("same")


def test_frozen() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        SERVER.chain = ()  # type: ignore[misc]


def test_a_bundle_with_text_around() -> None:
    bundle = b"\xef\xbb\xbf# Root - the -----good----- one\n" + ROOT.certificate.to_pem()
    bundle += b"\n\nSTRANGER\n========\n" + STRANGER.to_pem().replace(b"\n", b"\r\n") + b"\n-----\n"
    assert Certificate.list_from_pem(bundle) == [ROOT, STRANGER]
    assert all(type(one) is Certificate for one in PrivateCertificate.list_from_pem(bundle))


def with_another_version(certificate: Certificate) -> bytes:
    """The certificate in version 9, which there is not."""
    return certificate.to_der().replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x08", 1)


PEM = ROOT.certificate.to_pem()
GARBAGE: list[tuple[Callable[[bytes], object], bytes, str]] = [
    (Certificate.from_pem, b"", "no PEM certificate in the bytes given$"),
    (Certificate.from_pem, b"garbage", "no PEM certificate in the bytes given$"),
    (Certificate.from_pem, ROOT.to_der(), "no PEM certificate in .* looks like DER"),
    (Certificate.from_pem, SERVER_KEY, "no PEM certificate in .* contains PEM"),
    (Certificate.list_from_pem, b"# none\n", "no PEM certificate"),
    (Certificate.list_from_pem, PEM + PEM[:-30], "certificate 2 in the bytes given is malformed"),
    (Certificate.list_from_pem, PEM[:-40] + PEM, "certificate 1 in the bytes given is malformed"),
    (Certificate.from_pem, PEM[:90] + PEM[160:], "certificate 1 in the bytes given is malformed"),
    (Certificate.from_pem, PEM.replace(b"END CERT", b"END XCERT"), "certificate 1 .* malformed"),
    (Certificate.from_pem, PEM.replace(b" CERT", b" TRUSTED CERT"), "certificate 1 .* malformed"),
    (Certificate.from_der, b"", "the DER certificate in the bytes given is malformed"),
    (Certificate.from_der, b"garbage", "the DER certificate in the bytes given is malformed"),
    (Certificate.from_der, PEM, "the DER certificate in .* contains PEM.* is malformed"),
    (Certificate.from_der, ROOT.to_der() + b"\0", "looks like DER.* is malformed"),
    (Certificate.from_der, with_another_version(ROOT), "the DER certificate in .* is malformed"),
    (PrivateCertificate.from_pem, PEM, "no PEM private key in the bytes given"),
    (PrivateCertificate.from_pem, SERVER_KEY, "no PEM certificate"),
    (PrivateCertificate.from_pem, SERVER.to_pem()[20:], "no PEM private key"),
    (PrivateCertificate.from_pem, SERVER.to_pem() + SERVER_KEY, "2 private keys"),
    (PrivateCertificate.from_pem, SERVER_CHAIN + SERVER_KEY[:90], "the private key .* is malformed"),
    (PrivateCertificate.from_pem, SERVER_CHAIN + SERVER_KEY[:70] + SERVER_KEY[90:], "is malformed"),
    (PrivateCertificate.from_der, SERVER.to_der(), "without its private key: give it as `key`"),
]


@pytest.mark.parametrize(("read", "data", "message"), GARBAGE)
def test_garbage(read: Callable[[Any], object], data: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        read(data)
    assert not leaks(whole_text(raised.value))
    path = tmp_path / "certificate"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message.replace("the bytes given", re.escape(str(path)))):
        read(path)


def leaks(text: str) -> list[str]:
    return [secret for secret in secrets_of(SERVER) if secret in text]


def test_pem_is_no_str() -> None:
    for read in (Certificate.from_pem, Certificate.from_der, PrivateCertificate.from_pem):
        for text in (SERVER.to_pem().decode(), "\n".join(secrets_of(SERVER))):
            with pytest.raises(ValueError, match="pass PEM itself as bytes") as raised:
                read(text)
            assert not leaks(whole_text(raised.value))
    with pytest.raises(ValueError, match="as bytes") as raised:
        PrivateCertificate.from_pem(SERVER_CHAIN, key=Path(SERVER_KEY.decode()))
    assert not leaks(whole_text(raised.value))


def test_no_such_file(tmp_path: Path) -> None:
    for read in (Certificate.from_pem, Certificate.from_der, Certificate.list_from_pem):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "none")
    with pytest.raises(TypeError):
        Certificate.from_pem(5)  # type: ignore[arg-type]


# The key


@pytest.mark.parametrize(
    "pem",
    [
        SERVER_KEY + SERVER_CHAIN,
        SERVER_CHAIN + SERVER_KEY,
        SERVER.certificate.to_pem() + SERVER_KEY + INTERMEDIATE.certificate.to_pem(),
        SERVER_CHAIN + key_pem(SERVER, TRADITIONAL),
        (SERVER_CHAIN + SERVER_KEY).replace(b"\n", b"\r\n"),
        # What `openssl ecparam -genkey` writes before the key: the name of the curve.
        b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
        + key_pem(SERVER, TRADITIONAL)
        + SERVER_CHAIN,
        SERVER.to_pem(),
    ],
)
def test_key_and_chain_in_any_order(pem: bytes) -> None:
    private = PrivateCertificate.from_pem(pem)
    assert private == SERVER
    assert private.chain == (INTERMEDIATE,)
    assert private.to_pem() == SERVER_KEY + SERVER_CHAIN


@pytest.mark.parametrize("password", [PASSWORD, PASSWORD.encode()], ids=["str", "bytes"])
@pytest.mark.parametrize(
    "pem",
    [
        SERVER_CHAIN + key_pem(SERVER, PrivateFormat.PKCS8, PASSWORD),
        SERVER_CHAIN + key_pem(SERVER, TRADITIONAL, PASSWORD),
        SERVER.to_pem(PASSWORD),
    ],
    ids=["PKCS#8", "traditional", "ours"],
)
def test_encrypted_keys(pem: bytes, password: str | bytes) -> None:
    assert PrivateCertificate.from_pem(pem, password).to_pem() == SERVER.to_pem()
    for missing in (None, "", b""):
        with pytest.raises(ValueError, match="is encrypted, and no password was given") as raised:
            PrivateCertificate.from_pem(pem, missing)
        assert not leaks(whole_text(raised.value))
    with pytest.raises(ValueError, match="the password is wrong") as raised:
        PrivateCertificate.from_pem(pem, "another")
    assert "another" not in str(raised.value)
    assert not leaks(whole_text(raised.value))


def test_encrypted_der() -> None:
    key = key_der(SERVER, PASSWORD)
    assert PrivateCertificate.from_der(SERVER.to_der(), PASSWORD, key=key).chain == ()
    with pytest.raises(ValueError, match="is encrypted, and no password was given"):
        PrivateCertificate.from_der(SERVER.to_der(), key=key)
    with pytest.raises(ValueError, match="the password is wrong"):
        PrivateCertificate.from_der(SERVER.to_der(), "another", key=key)
    with pytest.raises(ValueError, match="private key .* of an unsupported kind .*contains PEM"):
        PrivateCertificate.from_der(SERVER.to_der(), key=SERVER_KEY)


def test_a_password_that_is_not_needed() -> None:
    with pytest.raises(ValueError, match="is not encrypted, but a password was given"):
        PrivateCertificate.from_pem(SERVER.to_pem(), PASSWORD)
    assert PrivateCertificate.from_pem(SERVER.to_pem(), "") == SERVER


def test_keys_that_are_no_tls_keys() -> None:
    ssh = SERVER.private_key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    with pytest.raises(ValueError, match="private key .* is malformed, or of an unsupported kind"):
        PrivateCertificate.from_pem(SERVER_CHAIN, key=ssh)


def test_the_key_must_be_the_certificates() -> None:
    message = "the private key does not belong to <PrivateCertificate 'CN=server' sha256:"
    with pytest.raises(ValueError, match=message) as raised:
        PrivateCertificate.from_pem(SERVER_CHAIN, key=key_pem(CLIENT))
    assert not any(secret in whole_text(raised.value) for secret in secrets_of(CLIENT))
    with pytest.raises(ValueError, match="does not belong"):
        PrivateCertificate.from_pem(PEM + SERVER.to_pem())
    with pytest.raises(ValueError, match="does not belong"):
        PrivateCertificate(SERVER.x509_certificate, ed25519.Ed25519PrivateKey.generate())


def test_a_public_key_of_no_known_kind() -> None:
    # The identifier of EC keys, 1.2.840.10045.2.1, made 1.2.840.10045.2.9.
    der = SERVER.to_der().replace(bytes.fromhex("2a8648ce3d0201"), bytes.fromhex("2a8648ce3d0209"))
    with pytest.raises(ValueError, match="a public key of an unsupported kind"):
        PrivateCertificate.from_der(der, key=key_der(SERVER))


def test_the_key_never_shows() -> None:
    for shown in (repr(SERVER), str(SERVER), f"{SERVER}", repr(attrs.asdict(SERVER)), repr([SERVER])):
        assert not leaks(shown)
    assert repr(SERVER) == f"<PrivateCertificate 'CN=server' sha256:{SERVER.fingerprint}>"
    assert repr(SERVER.certificate) == f"<Certificate 'CN=server' sha256:{SERVER.fingerprint}>"
    assert leaks(SERVER.to_pem().decode())


def test_the_certificate_to_give_away() -> None:
    assert type(SERVER.certificate) is Certificate
    assert b"PRIVATE" not in SERVER.certificate.to_pem()
    assert b"PRIVATE" not in b"".join(one.to_pem() for one in SERVER.chain)


def test_written_keys() -> None:
    assert SERVER.to_pem().startswith(b"-----BEGIN PRIVATE KEY-----\n")
    encrypted = SERVER.to_pem(b"bytes")
    assert encrypted.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n")
    assert not leaks(encrypted.decode())
    assert PrivateCertificate.from_pem(encrypted, "bytes").chain == (INTERMEDIATE,)
    for empty in ("", b""):
        with pytest.raises(ValueError):
            SERVER.to_pem(empty)


# Self-signed


def test_self_signed() -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    made = PrivateCertificate.self_signed("alice's laptop")
    assert made.subject == made.issuer == "CN=alice's laptop"
    assert made.names == ()
    assert made.chain == ()
    assert made.not_before <= before - timedelta(minutes=59)
    assert before + timedelta(days=365) <= made.not_after <= datetime.now(UTC) + timedelta(days=365)
    assert isinstance(made.private_key, ec.EllipticCurvePrivateKey)
    assert made != PrivateCertificate.self_signed("alice's laptop")
    assert PrivateCertificate.from_pem(made.to_pem()) == made


@pytest.mark.parametrize(
    ("common_name", "names", "expected"),
    [
        ("localhost", [], ("localhost",)),
        ("a.example", ["b.example", "a.example"], ("a.example", "b.example")),
        ("127.0.0.1", ["::0:1"], ("127.0.0.1", "::1")),
        ("Our service", ["*.example"], ("*.example",)),
        ("a.example.", [], ()),
        ("bücher.example", ["ß_x"], ("xn--bcher-kva.example", "ss_x")),
        ("-" * 64, [], ()),
    ],
)
def test_names(common_name: str, names: list[str], expected: tuple[str, ...]) -> None:
    made = PrivateCertificate.self_signed(common_name, names=iter(names))
    assert made.common_name == common_name
    assert made.names == expected


@pytest.mark.parametrize(
    "name", ["", "two words", "host:1234", "a..b", "x" * 64, "a.*.b", "10.0.0.0/8", "h\n", "http://h"]
)
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(ValueError, match="is neither a host name nor an IP address"):
        PrivateCertificate.self_signed("a", names=[name])


def test_what_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="not one str"):
        PrivateCertificate.self_signed("a", names="localhost")
    for common_name in ("", "x" * 65):
        with pytest.raises(ValueError, match="a common name has 1 to 64 characters"):
            PrivateCertificate.self_signed(common_name)
    for lifetime in (timedelta(0), timedelta(days=-1)):
        with pytest.raises(ValueError, match="must be positive"):
            PrivateCertificate.self_signed("a", lifetime=lifetime)


# Handshakes


def handshake(
    client: ssl.SSLContext, server: ssl.SSLContext, hostname: str | None = None
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Shake hands in memory, and pass a word in both directions; return both sides."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = (
        client.wrap_bio(to_client, to_server, server_hostname=hostname),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    waiting = list(sides)
    while waiting:
        for side in tuple(waiting):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(side)
    for here, there in (sides, sides[::-1]):
        here.write(b"word")
        assert there.read() == b"word"
    return sides


def client(
    certificate: PrivateCertificate | None = None,
    authorities: Iterable[Certificate] | None = None,
    check_hostname: bool = False,
) -> ssl.SSLContext:
    return make_ssl_context(
        certificate, server_side=False, authorities=authorities, check_hostname=check_hostname
    )


def server(
    certificate: PrivateCertificate | None = None, authorities: Iterable[Certificate] | None = None
) -> ssl.SSLContext:
    return make_ssl_context(certificate, server_side=True, authorities=authorities)


def peers(sides: tuple[ssl.SSLObject, ssl.SSLObject]) -> list[Certificate | None]:
    """Whom the client saw, and whom the server."""
    seen = [side.getpeercert(binary_form=True) for side in sides]
    return [Certificate.from_der(der) if der else None for der in seen]


def refused(
    client: ssl.SSLContext, server: ssl.SSLContext, message: str, hostname: str | None = None
) -> None:
    with pytest.raises(ssl.SSLError, match=message):
        handshake(client, server, hostname)


def test_anonymous() -> None:
    seen, nobody = peers(handshake(client(), server()))
    assert nobody is None
    assert seen is not None
    assert seen.common_name == "TEMPORARY CERTIFICATE"
    assert seen.not_after < datetime.now(UTC) + timedelta(days=2)
    assert [seen] != peers(handshake(client(), server()))[:1]


def test_unverified() -> None:
    assert peers(handshake(client(STRANGER), server(SERVER))) == [SERVER, None]


@pytest.mark.parametrize("none", [(), [], iter(())])
def test_an_empty_list_of_authorities(none: Iterable[Certificate]) -> None:
    """It would be a mistake in a configuration, and must not switch the verification off."""
    for server_side in (False, True):
        with pytest.raises(ValueError, match="the list of authorities is empty"):
            make_ssl_context(SERVER, server_side=server_side, authorities=none)


def test_a_common_name_is_no_host_name() -> None:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "server.example")])
    key = ed25519.Ed25519PrivateKey.generate()
    now, hour = datetime.now(UTC), timedelta(hours=1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now - hour, now + hour)
    nameless = PrivateCertificate(builder.sign(key, None), key)
    assert nameless.common_name == "server.example"
    checking = client(None, [nameless], check_hostname=True)
    refused(checking, server(nameless), "Hostname mismatch", "server.example")


def test_no_renegotiation() -> None:
    for context in (client(), server(SERVER)):
        assert context.options & ssl.OP_NO_RENEGOTIATION


def test_mutual() -> None:
    sides = handshake(client(CLIENT, [ROOT]), server(SERVER, [ROOT]))
    assert peers(sides) == [SERVER, CLIENT]


def test_one_sided() -> None:
    assert peers(handshake(client(None, [ROOT]), server(SERVER))) == [SERVER, None]
    assert peers(handshake(client(CLIENT), server(None, [ROOT])))[1] == CLIENT


def test_tls_1_2() -> None:
    old = client(CLIENT, [ROOT], check_hostname=True)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    sides = handshake(old, server(SERVER, [ROOT]), "server.example")
    assert sides[0].version() == "TLSv1.2"
    assert peers(sides) == [SERVER, CLIENT]
    for context in (client(), server()):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_the_server_demands_a_certificate() -> None:
    refused(client(None, [ROOT]), server(SERVER, [ROOT]), "PEER_DID_NOT_RETURN_A_CERTIFICATE")


def test_untrusted() -> None:
    verify_failed = "CERTIFICATE_VERIFY_FAILED"
    refused(client(None, [ROOT]), server(STRANGER), verify_failed)
    refused(client(None, [STRANGER]), server(SERVER), verify_failed)
    refused(client(None, [ROOT]), server(), verify_failed)
    refused(client(STRANGER), server(SERVER, [ROOT]), verify_failed)


def test_the_systems_authorities_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "system.pem"
    file.write_bytes(ROOT.certificate.to_pem())
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    handshake(ssl.create_default_context(), server(SERVER), "server.example")
    refused(client(None, [STRANGER]), server(SERVER), "CERTIFICATE_VERIFY_FAILED")
    assert client(None, [ROOT, STRANGER]).cert_store_stats()["x509"] == 2


def test_any_certificate_can_be_an_authority() -> None:
    for authority in (ROOT, INTERMEDIATE, SERVER, SERVER.certificate):
        handshake(client(None, [authority]), server(SERVER))
    handshake(client(CLIENT), server(None, [CLIENT]))
    refused(client(CLIENT), server(None, [SERVER]), "CERTIFICATE_VERIFY_FAILED")


def test_a_leaf_is_no_authority_for_others() -> None:
    for leaf in (SERVER, STRANGER):
        signed = issue("signed by a leaf", leaf)
        refused(client(None, [leaf]), server(signed), "CERTIFICATE_VERIFY_FAILED")


def test_the_chain_is_sent_along() -> None:
    assert SERVER.chain == (INTERMEDIATE,)
    without = PrivateCertificate(SERVER.x509_certificate, SERVER.private_key)
    refused(client(None, [ROOT]), server(without), "unable to get local issuer certificate")
    deep = issue("deep", issue("Third", INTERMEDIATE, authority=True))
    assert len(deep.chain) == 2
    assert peers(handshake(client(None, [ROOT]), server(deep))) == [deep, None]


def test_expired() -> None:
    expired = issue("old", ROOT, ends=timedelta(minutes=-1))
    early = issue("new", ROOT, begins=timedelta(minutes=1))
    for authority in (ROOT, expired):
        refused(client(None, [authority]), server(expired), "certificate has expired")
        refused(client(expired), server(None, [authority]), "certificate has expired")
    refused(client(None, [ROOT]), server(early), "certificate is not yet valid")
    handshake(client(expired), server(early))


@pytest.mark.parametrize("hostname", ["server.example", "a.wild.example", "127.0.0.1", "::1"])
def test_the_host_name_matches(hostname: str) -> None:
    handshake(client(None, [ROOT], check_hostname=True), server(SERVER), hostname)


@pytest.mark.parametrize(
    "hostname", ["server", "other.example", "a.b.wild.example", "127.0.0.2", "::2"]
)
def test_the_host_name_does_not_match(hostname: str) -> None:
    handshake(client(None, [ROOT]), server(SERVER), hostname)
    mismatch = "(Hostname|IP address) mismatch"
    refused(client(None, [ROOT], check_hostname=True), server(SERVER), mismatch, hostname)


def test_the_host_name_of_self_signed_ones() -> None:
    made = PrivateCertificate.self_signed("bücher.example", names=["127.0.0.1"])
    checking = made.ssl_context(server_side=False, authorities=[made], check_hostname=True)
    accepting = made.ssl_context(server_side=True, authorities=[made])
    for hostname in ("bücher.example", "127.0.0.1"):
        assert peers(handshake(checking, accepting, hostname)) == [made, made]
    refused(checking, accepting, "mismatch", "127.0.0.2")


@pytest.mark.parametrize("partial", [ssl.VerifyFlags(0), ssl.VERIFY_X509_PARTIAL_CHAIN])
@pytest.mark.parametrize("strict", [ssl.VerifyFlags(0), ssl.VERIFY_X509_STRICT])
def test_self_signed_ones_for_any_openssl(partial: ssl.VerifyFlags, strict: ssl.VerifyFlags) -> None:
    made, twin = (PrivateCertificate.self_signed("localhost") for _ in range(2))
    contexts = []
    for side in (ssl.PROTOCOL_TLS_CLIENT, ssl.PROTOCOL_TLS_SERVER):
        context = made.ssl_context(server_side=side == ssl.PROTOCOL_TLS_SERVER)
        # Authorities of the same name do not get in one another's way.
        context.load_verify_locations(cadata=twin.to_der() + made.to_der())
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags = ssl.VERIFY_X509_TRUSTED_FIRST | partial | strict
        contexts.append(context)
    assert peers(handshake(contexts[0], contexts[1], "localhost")) == [made, made]


def test_self_signed_ones_for_the_default_context() -> None:
    # On Python 3.13 this one is strict.
    made = PrivateCertificate.self_signed("localhost")
    default = ssl.create_default_context(cadata=made.to_der())
    assert peers(handshake(default, server(made), "localhost")) == [made, None]


def test_other_kinds_of_keys() -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ed25519")])
    now, hour = datetime.now(UTC), timedelta(hours=1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now - hour, now + hour)
    certificate = PrivateCertificate(builder.sign(key, None), key)
    assert peers(handshake(client(None, [certificate]), server(certificate))) == [certificate, None]


def test_check_hostname_needs_authorities_and_a_client() -> None:
    with pytest.raises(ValueError, match="check_hostname needs authorities"):
        client(CLIENT, None, check_hostname=True)
    with pytest.raises(ValueError, match="check_hostname is for clients"):
        SERVER.ssl_context(server_side=True, authorities=[ROOT], check_hostname=True)


# Keys and files


@pytest.fixture(params=["in memory", "no memfd_create", "no /proc", "memfd_create is forbidden"])
def files(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], list[Path]]:
    """On systems that can and cannot keep files in memory, list the temporary ones."""
    if request.param == "no memfd_create":
        monkeypatch.delattr(os, "memfd_create", raising=False)
    elif request.param == "no /proc":
        isdir = os.path.isdir
        there = lambda path: path != "/proc/self/fd" and isdir(path)  # noqa: E731
        monkeypatch.setattr(os.path, "isdir", there)
    elif request.param == "memfd_create is forbidden":

        def memfd_create(name: str) -> int:
            raise PermissionError

        monkeypatch.setattr(os, "memfd_create", memfd_create, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    descriptors = os.listdir("/dev/fd")

    def files(loading: bool = False) -> list[Path]:
        assert loading or os.listdir("/dev/fd") == descriptors
        return list(tmp_path.iterdir())

    return files


def test_the_file_of_the_key(files: Callable[..., list[Path]], monkeypatch: pytest.MonkeyPatch) -> None:
    load_cert_chain = ssl.SSLContext.load_cert_chain
    passwords = []

    def spy(context: ssl.SSLContext, path: str, keyfile: None = None, password: Any = None) -> None:
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert os.stat(path).st_uid == os.geteuid()
        data = Path(path).read_bytes()
        assert b"BEGIN ENCRYPTED PRIVATE KEY" in data
        assert not leaks(data.decode())
        assert PrivateCertificate.from_pem(data, password).chain == SERVER.chain
        passwords.append(password)
        named = not os.path.isdir("/proc/self/fd")
        assert len(files(loading=True)) == named, "a process that is killed now leaves no file"
        load_cert_chain(context, path, keyfile, password)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", spy)
    for _ in range(2):
        assert peers(handshake(client(None, [ROOT]), server(SERVER))) == [SERVER, None]
        assert files() == []
    assert len(set(passwords)) == 2
    assert min(map(len, passwords)) >= 32


def test_the_file_is_gone_if_loading_raises(
    files: Callable[[], list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = []

    def failing(context: ssl.SSLContext, path: str, keyfile: None = None, password: Any = None) -> None:
        paths.append(path)
        raise ssl.SSLError("no")

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", failing)
    with pytest.raises(ssl.SSLError) as raised:
        server(SERVER)
    assert not leaks(whole_text(raised.value))
    assert files() == []
    assert not os.path.exists(paths[0])


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="no files in memory here")
def test_no_disk_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    assert peers(handshake(client(), server(SERVER))) == [SERVER, None]
