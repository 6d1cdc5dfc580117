"""Certificates: the identity of one side and the authorities it trusts, made into an `ssl.SSLContext`.

`cryptography` reads, writes and creates certificates, and `ssl` does TLS; this module connects the two.
It has two classes, so that a peer that only verifies needs no key, and a key is never passed where a
certificate is enough.

A context trusts exactly the certificates that it was given, and never those of the system. AMP peers
usually belong to the same owner, and a certificate from a public authority does not prove that.
"""

from __future__ import annotations

import re
import secrets
import ssl
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Self

from attrs import Attribute, field, frozen
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ..errors import shortened
from .alerts import AlertingContext
from .keyfiles import private_file
from .pem import Source, as_bytes, der_certificate, der_key, pem_certificates, pem_key, read

__all__ = ["Certificate", "PrivateCertificate", "make_ssl_context"]


@frozen(eq=False, repr=False)
class Certificate:
    """A certificate without its key: of a peer, or of an authority that verifies peers.

    Certificates are equal if their DER is the same, whether or not they come with a key.

    Attributes:
        x509_certificate: the certificate as an object of `cryptography`, which gives more details.
    """

    x509_certificate: x509.Certificate

    @classmethod
    def from_pem(cls, source: Source) -> Self:
        """Return the certificate in `source`, which is PEM bytes or the path of a PEM file.

        If there are several, as in a fullchain.pem, only the first is used; trusting it does not mean
        trusting the others. `list_from_pem` returns them all. Keys in the file are ignored.

        Raises `ValueError` if the file has no certificate or a malformed one, `OSError` if the file
        cannot be read.
        """
        return cls(pem_certificates(*read(source))[0])

    @classmethod
    def from_der(cls, source: Source) -> Self:
        """Return the certificate in `source`, which is DER bytes or the path of a DER file.

        Raises the same errors as `from_pem`.
        """
        return cls(der_certificate(*read(source)))

    @staticmethod
    def list_from_pem(source: Source) -> list[Certificate]:
        """Return all certificates in `source`, in order, for example from a file of authorities.

        Raises the same errors as `from_pem`, so the list is never empty.
        """
        return [Certificate(found) for found in pem_certificates(*read(source))]

    @property
    def subject(self) -> str:
        """The owner of the certificate, in the format of RFC 4514: `CN=example.com,O=Example`."""
        return self.x509_certificate.subject.rfc4514_string()

    @property
    def issuer(self) -> str:
        """The signer of the certificate, in the same format as `subject`."""
        return self.x509_certificate.issuer.rfc4514_string()

    @property
    def common_name(self) -> str | None:
        """The common name of the subject, or None; if there are several, the last, most specific one.

        It is for people to read; a peer's host name is verified against `names`.
        """
        found = self.x509_certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(found[-1].value) if found else None

    @property
    def names(self) -> tuple[str, ...]:
        """The host names and IP addresses of the certificate, in the order of its subjectAltName."""
        try:
            extension = self.x509_certificate.extensions.get_extension_for_class(
                x509.SubjectAlternativeName
            )
        except x509.ExtensionNotFound:
            return ()
        kinds = (x509.DNSName, x509.IPAddress)
        return tuple(str(name.value) for name in extension.value if isinstance(name, kinds))

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the DER: 64 hexadecimal digits, in lower case and without colons."""
        return self.x509_certificate.fingerprint(hashes.SHA256()).hex()

    @property
    def not_before(self) -> datetime:
        """The first moment at which the certificate is valid, in UTC."""
        return self.x509_certificate.not_valid_before_utc

    @property
    def not_after(self) -> datetime:
        """The last moment at which the certificate is valid, in UTC."""
        return self.x509_certificate.not_valid_after_utc

    @property
    def is_expired(self) -> bool:
        """Whether `not_after` has passed, by the clock of this machine."""
        return datetime.now(UTC) > self.not_after

    def to_pem(self) -> bytes:
        """Return the certificate as PEM."""
        return self.x509_certificate.public_bytes(Encoding.PEM)

    def to_der(self) -> bytes:
        """Return the certificate as DER."""
        return self.x509_certificate.public_bytes(Encoding.DER)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Certificate):
            return NotImplemented
        return self.to_der() == other.to_der()

    def __hash__(self) -> int:
        return hash(self.to_der())

    def __repr__(self) -> str:
        # Shortened, because a peer may choose the subject, and so its length.
        return f"<{self.__class__.__name__} {shortened(self.subject)} sha256:{self.fingerprint}>"


def _without_keys(certificates: Iterable[Certificate]) -> tuple[Certificate, ...]:
    return tuple(Certificate(certificate.x509_certificate) for certificate in certificates)


def _check_key(
    certificate: PrivateCertificate,
    attribute: Attribute[PrivateKeyTypes],
    private_key: PrivateKeyTypes,
) -> None:
    try:
        belongs = private_key.public_key() == certificate.x509_certificate.public_key()
    except (UnsupportedAlgorithm, ValueError) as error:
        raise ValueError(f"{certificate!r} has a public key of an unsupported kind") from error
    if not belongs:
        raise ValueError(f"the private key does not belong to {certificate!r}")


@frozen(eq=False, repr=False)
class PrivateCertificate(Certificate):
    """A certificate with its private key, with which one side proves its identity.

    Its repr does not show the key; only `private_key` and `to_pem` reveal it.

    Attributes:
        private_key: the key, as an object of `cryptography`.
        chain: the certificates between this one and an authority, which are sent along with it.
    """

    private_key: PrivateKeyTypes = field(validator=_check_key)
    chain: tuple[Certificate, ...] = field(default=(), converter=_without_keys)

    @classmethod
    def from_pem(
        cls, source: Source, password: str | bytes | None = None, *, key: Source | None = None
    ) -> Self:
        """Return the certificate in `source`, which is PEM bytes or a path, with its chain and key.

        The key may come before or after the certificates, or be in a source of its own, `key`. If there
        are several certificates, the key belongs to the first and the others are its chain, as in a
        fullchain.pem. The key is PKCS#8 or in the traditional format, and `password` decrypts it; None
        or an empty password is for a key that is not encrypted.

        Raises `ValueError` if the certificate or the key is missing, malformed or of an unsupported
        kind, if there are several keys, if the key does not belong to the certificate, or if the
        password is wrong, missing or not needed; `OSError` if a file cannot be read.
        """
        data, where = read(source)
        certificate, *chain = pem_certificates(data, where)
        if key is not None:
            data, where = read(key)
        return cls(certificate, pem_key(data, where, password), map(Certificate, chain))

    @classmethod
    def from_der(
        cls, source: Source, password: str | bytes | None = None, *, key: Source | None = None
    ) -> Self:
        """Return the certificate in `source` with the key in `key`, both in DER, and without a chain.

        Raises the same errors as `from_pem`; `key` is required, because DER holds only one object.
        """
        certificate = der_certificate(*read(source))
        if key is None:
            raise ValueError("a certificate in DER comes without its private key: give it as `key`")
        return cls(certificate, der_key(*read(key), password))

    @classmethod
    def self_signed(
        cls,
        common_name: str,
        *,
        names: Iterable[str] = (),
        lifetime: timedelta = timedelta(days=365),
    ) -> Self:
        """Return a new certificate with a new key (P-256), for either side of TLS.

        It is its own authority: a peer that trusts it can verify it. It is not an authority for any
        other certificate. `names` are the host names and IP addresses that it is for; `common_name` is
        added to them if it looks like one. It is valid for `lifetime` from now, and also for the hour
        before now, because clocks differ.

        Raises `ValueError` if one of `names` is not a host name or an IP address, `common_name` does
        not have 1 to 64 characters (the limit of RFC 5280), or `lifetime` is not positive; `TypeError`
        if `names` is a single str.
        """
        if lifetime <= timedelta(0):
            raise ValueError(f"the lifetime of a certificate must be positive, not {lifetime}")
        if not 1 <= len(common_name) <= 64:
            raise ValueError(f"a common name has 1 to 64 characters, not {len(common_name)}")
        alternatives = _alternative_names(common_name, names)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        key = ec.generate_private_key(ec.SECP256R1())
        key_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        now = datetime.now(UTC)
        # No keyUsage: it could not include keyCertSign, and without that, older versions of OpenSSL
        # do not recognise that the certificate is self-signed.
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _CLOCKS_DIFFER)
            .not_valid_after(now + lifetime)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_EITHER_SIDE, critical=False)
            .add_extension(key_id, critical=False)
            # Lets a peer find the right one of several authorities with the same name.
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id), critical=False
            )
        )
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        return cls(builder.sign(key, hashes.SHA256()), key)

    @property
    def certificate(self) -> Certificate:
        """The certificate without its key, which may be shown to anyone."""
        return Certificate(self.x509_certificate)

    def to_pem(self, password: str | bytes | None = None) -> bytes:
        """Return the key (PKCS#8), the certificate and its chain as one PEM, which is secret.

        `password` encrypts the key; raises `ValueError` if it is empty. `certificate.to_pem()` returns
        the certificate without its key.
        """
        encryption: KeySerializationEncryption = NoEncryption()
        if password is not None:
            encryption = BestAvailableEncryption(as_bytes(password))
        key = self.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
        return key + b"".join(one.to_pem() for one in (self.certificate, *self.chain))

    def ssl_context(
        self,
        *,
        server_side: bool,
        authorities: Iterable[Certificate] | None = None,
        check_hostname: bool = False,
    ) -> ssl.SSLContext:
        """Return a context that presents this certificate; see `make_ssl_context`."""
        return make_ssl_context(
            self, server_side=server_side, authorities=authorities, check_hostname=check_hostname
        )


def make_ssl_context(
    certificate: PrivateCertificate | None,
    *,
    server_side: bool,
    authorities: Iterable[Certificate] | None = None,
    check_hostname: bool = False,
) -> ssl.SSLContext:
    """Return a new context for one side of TLS 1.2 or later.

    `certificate` is presented to the peer. It is optional for a client. A server needs one: if it is
    None, a temporary certificate is created, which no peer can verify.

    With `authorities`, the peer must present a certificate, whichever side it is. It must be one of
    them or signed by one, directly or through certificates that the peer sends along; nothing else is
    trusted. With None, nothing is verified: the connection is safe from eavesdropping, but not from
    active attackers. `check_hostname` is for clients: one of the certificate's `names` must also match
    the `server_hostname` of the connection; a common name does not count.

    Raises `ValueError` if `authorities` is empty, or if `check_hostname` is used without
    authorities or by a server, and `ssl.SSLError` if OpenSSL rejects the certificate or an authority,
    for example for a small key.
    """
    trusted = b"".join(authority.to_der() for authority in authorities or ())
    if authorities is not None and not trusted:
        raise ValueError(
            "the list of authorities is empty: no peer could be verified; to verify nothing, pass None"
        )
    if check_hostname and server_side:
        raise ValueError("check_hostname is for clients: a server's peer has no host name")
    if check_hostname and not trusted:
        raise ValueError("check_hostname needs authorities: without them nothing is verified")
    context = AlertingContext(ssl.PROTOCOL_TLS_SERVER if server_side else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.check_hostname = check_hostname
    context.hostname_checks_common_name = False
    if trusted:
        context.verify_mode = ssl.CERT_REQUIRED
        # So that an authority need not be a self-signed root.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(cadata=trusted)
    else:
        context.verify_mode = ssl.CERT_NONE
    if certificate is None and server_side:
        certificate = PrivateCertificate.self_signed(
            "TEMPORARY CERTIFICATE", lifetime=timedelta(days=1)
        )
    if certificate is not None:
        _load(context, certificate)
    return context


_CLOCKS_DIFFER = timedelta(hours=1)
_EITHER_SIDE = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])

_HOST_NAME = re.compile(r"(\*\.)?[\w-]+(\.[\w-]+)*", re.ASCII)


def _alternative_names(common_name: str, names: Iterable[str]) -> list[x509.GeneralName]:
    """Return all names as entries for a subjectAltName, without duplicates."""
    if isinstance(names, str):
        raise TypeError("names are an iterable of str, not one str")
    found = [_general_name(common_name)]
    for name in names:
        found.append(_general_name(name))
        if found[-1] is None:
            raise ValueError(f"{name!r} is neither a host name nor an IP address")
    return list(dict.fromkeys(name for name in found if name is not None))


def _general_name(name: str) -> x509.GeneralName | None:
    """Return `name` as a subjectAltName entry; None if it is not a host name or an IP address."""
    with suppress(ValueError):  # It is not an address, and may be a host name.
        return x509.IPAddress(ip_address(name))
    with suppress(UnicodeError):  # It is not a host name either.
        # As `ssl` encodes the `server_hostname` that it will be compared with.
        host = name.encode("idna").decode("ascii")
        if _HOST_NAME.fullmatch(host):
            return x509.DNSName(host)
    return None


def _load(context: ssl.SSLContext, certificate: PrivateCertificate) -> None:
    """Make `context` present `certificate`.

    `ssl` can load a key only from a file, so the key is written to one that exists only while `ssl`
    reads it, encrypted with a random password.
    """
    password = secrets.token_hex(32)
    with private_file(certificate.to_pem(password)) as path:
        context.load_cert_chain(path, password=password)
