"""Certificates: who one is and whom one trusts, as values that become an `ssl.SSLContext`.

`cryptography` reads, writes and makes certificates, and `ssl` does the TLS; this module leads from the
one to the other. Its two classes are there so that a peer that only verifies never needs a key, and
a key is never where only a certificate is needed.

Trust is what one says, and no more: a context trusts exactly the certificates that it was given, and
never those of the system. AMP's peers are most often one another's own programs; that a public
authority vouches for somebody's name does not make them a peer.
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
from .keyfiles import private_file
from .pem import Source, as_bytes, der_certificate, der_key, pem_certificates, pem_key, read

__all__ = ["Certificate", "PrivateCertificate", "make_ssl_context"]


@frozen(eq=False, repr=False)
class Certificate:
    """A certificate, without its key: a peer, or an authority that peers are verified with.

    Certificates are equal if they are the same bytes in DER, whether or not their key is there, too.

    Attributes:
        x509_certificate: the same for `cryptography`, which knows more of it.
    """

    x509_certificate: x509.Certificate

    @classmethod
    def from_pem(cls, source: Source) -> Self:
        """Return the certificate in `source`: the bytes of a PEM, or the path of such a file.

        Of several, as in a fullchain.pem, it is the first; the others are no part of it, and are not
        trusted where it is. `list_from_pem` returns them all. Keys in the file are not looked at.

        Raises `ValueError` if there is no certificate or a malformed one, `OSError` if the file
        cannot be read.
        """
        return cls(pem_certificates(*read(source))[0])

    @classmethod
    def from_der(cls, source: Source) -> Self:
        """Return the certificate in `source`: its DER, or the path of a file that has it.

        Raises what `from_pem` does.
        """
        return cls(der_certificate(*read(source)))

    @staticmethod
    def list_from_pem(source: Source) -> list[Certificate]:
        """Return all certificates in `source`, in order: for a file of authorities.

        There is always one at least. Raises what `from_pem` does.
        """
        return [Certificate(found) for found in pem_certificates(*read(source))]

    @property
    def subject(self) -> str:
        """Whose certificate it is, as RFC 4514 writes it: `CN=example.com,O=Example`."""
        return self.x509_certificate.subject.rfc4514_string()

    @property
    def issuer(self) -> str:
        """Who signed it, written like `subject`."""
        return self.x509_certificate.issuer.rfc4514_string()

    @property
    def common_name(self) -> str | None:
        """The common name of the subject, or None; of several, the last, which is the most specific.

        It is for people to read: what a peer is verified with is `names`.
        """
        found = self.x509_certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(found[-1].value) if found else None

    @property
    def names(self) -> tuple[str, ...]:
        """The host names and IP addresses that it is for, of its subjectAltName, in their order."""
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
        """The SHA-256 of its DER: 64 hexadecimal digits, in lower case and without colons."""
        return self.x509_certificate.fingerprint(hashes.SHA256()).hex()

    @property
    def not_before(self) -> datetime:
        """When it begins to be valid, in UTC."""
        return self.x509_certificate.not_valid_before_utc

    @property
    def not_after(self) -> datetime:
        """The last moment at which it is valid, in UTC."""
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
        # The subject may be a peer's choice, and its length, too.
        return f"<{self.__class__.__name__} {shortened(self.subject)} sha256:{self.fingerprint}>"


def _without_keys(certificates: Iterable[Certificate]) -> tuple[Certificate, ...]:
    return tuple(Certificate(certificate.x509_certificate) for certificate in certificates)


@frozen(eq=False, repr=False)
class PrivateCertificate(Certificate):
    """A certificate with its private key: what one side proves with who it is.

    Nothing here prints the key; what gives it away is `private_key` and `to_pem`, and nothing else.

    Attributes:
        private_key: the key, as an object of `cryptography`.
        chain: the certificates between this one and an authority, which are sent along with it.
    """

    private_key: PrivateKeyTypes = field()
    chain: tuple[Certificate, ...] = field(default=(), converter=_without_keys)

    @private_key.validator
    def _belongs(self, attribute: Attribute[PrivateKeyTypes], private_key: PrivateKeyTypes) -> None:
        try:
            belongs = private_key.public_key() == self.x509_certificate.public_key()
        except (UnsupportedAlgorithm, ValueError) as error:
            raise ValueError(f"{self!r} has a public key of no supported kind") from error
        if not belongs:
            raise ValueError(f"the private key does not belong to {self!r}")

    @classmethod
    def from_pem(
        cls, source: Source, password: str | bytes | None = None, *, key: Source | None = None
    ) -> Self:
        """Return the certificate in `source`, its chain and its key: a PEM's bytes, or a file's path.

        The key may stand before or behind the certificates, or in a source of its own, `key`. Of
        several certificates the first is the one that the key belongs to, and the others are its
        chain; a fullchain.pem is in that order. The key is PKCS#8 or in the traditional format, and
        `password` decrypts it; None, or an empty one, is for a key that is not encrypted.

        Raises `ValueError` if the certificate or the key is missing, malformed or of no supported
        kind, if there are several keys, if the key is not the certificate's, and if the password is
        wrong, missing, or not needed; `OSError` if a file cannot be read.
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
        """Return the certificate in `source` and the key in `key`, both of them DER; no chain.

        Raises what `from_pem` does: `key` must be given, as DER has no room for it elsewhere.
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

        It is its own authority: a peer that was given it verifies it. It is no authority for any
        other certificate. `names` are the host names and IP addresses that it is for; where
        `common_name` looks like one, it is among them. It is valid for `lifetime` from now, and, as
        clocks differ, has been for an hour.

        Raises `ValueError` for a name that is neither, a `common_name` not of 1 to 64 characters, and
        a `lifetime` that is not positive; `TypeError` if `names` is one str.
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
        # No keyUsage: it could not name keyCertSign, and without that older OpenSSLs do not see
        # that the certificate is signed with its own key.
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
            # Tells apart the authorities of a peer that knows several of the same name.
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id), critical=False
            )
        )
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        return cls(builder.sign(key, hashes.SHA256()), key)

    @property
    def certificate(self) -> Certificate:
        """The certificate alone, to give away."""
        return Certificate(self.x509_certificate)

    def to_pem(self, password: str | bytes | None = None) -> bytes:
        """Return the key (PKCS#8), the certificate and its chain as one PEM: keep it secret.

        With a `password` the key is encrypted; `ValueError` for an empty one. For the certificate
        without its key: `certificate.to_pem()`.
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
        """Return a context that shows this certificate; `make_ssl_context` says the rest."""
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

    `certificate` is shown to the peer. A client may do without; a server cannot, so that for None it
    makes one, which nobody can verify.

    With `authorities`, the peer must show a certificate, on either side, and it must be one of them
    or be signed by one, also by way of certificates that the peer sends along. Nobody else is
    trusted. Without any (None or none in it) nothing is verified: the connection is safe from those
    who listen, and not from those who stand in between. `check_hostname` is for clients: the
    certificate must also be for the `server_hostname` of the connection.

    Raises `ValueError` if a host name is to be checked without authorities or by a server, and
    `ssl.SSLError` if OpenSSL does not take the certificate or an authority (a key too small, say).
    """
    trusted = b"".join(authority.to_der() for authority in authorities or ())
    if check_hostname and server_side:
        raise ValueError("check_hostname is for clients: a server's peer has no host name")
    if check_hostname and not trusted:
        raise ValueError("check_hostname needs authorities: without them nothing is verified")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server_side else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = check_hostname
    if trusted:
        context.verify_mode = ssl.CERT_REQUIRED
        # An authority is what one trusts, and need not be the root of what it was signed by.
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
    """Return what the names are in a certificate, each of them once."""
    if isinstance(names, str):
        raise TypeError("names are an iterable of str, not one str")
    found = [_general_name(common_name)]
    for name in names:
        found.append(_general_name(name))
        if found[-1] is None:
            raise ValueError(f"{name!r} is neither a host name nor an IP address")
    return list(dict.fromkeys(name for name in found if name is not None))


def _general_name(name: str) -> x509.GeneralName | None:
    """Return what `name` is in a certificate, or None if it is no host name and no IP address."""
    with suppress(ValueError):
        return x509.IPAddress(ip_address(name))
    with suppress(UnicodeError):
        # As `ssl` encodes the `server_hostname` that it will be compared with.
        host = name.encode("idna").decode("ascii")
        if _HOST_NAME.fullmatch(host):
            return x509.DNSName(host)
    return None


def _load(context: ssl.SSLContext, certificate: PrivateCertificate) -> None:
    """Let `context` show `certificate`.

    `ssl` takes a key from a file and from nowhere else, so it gets one for as long as it reads it,
    encrypted with a password that is then forgotten.
    """
    password = secrets.token_hex(32)
    with private_file(certificate.to_pem(password)) as path:
        context.load_cert_chain(path, password=password)
