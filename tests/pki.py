"""Certificates for tests: signed by one another, expired, or otherwise not what `self_signed` makes."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from amp_asyncio import Certificate, PrivateCertificate


def issue(
    common_name: str,
    issuer: PrivateCertificate | None = None,
    *,
    names: Iterable[str] = (),
    authority: bool = False,
    begins: timedelta = timedelta(hours=-1),
    ends: timedelta = timedelta(hours=1),
    extensions: Iterable[x509.ExtensionType] = (),
) -> PrivateCertificate:
    """Return a certificate signed by `issuer`, or by itself, valid from `begins` to `ends`, from now.

    Its chain is what a peer needs that trusts the root alone: the root itself is not in it.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    if issuer is None:
        issuer_name, issuer_key = subject, key
    else:
        assert isinstance(issuer.private_key, ec.EllipticCurvePrivateKey)
        issuer_name, issuer_key = issuer.x509_certificate.subject, issuer.private_key
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(
        issuer_name=issuer_name,
        subject_name=subject,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now + begins,
        not_valid_after=now + ends,
    )
    signing = dict.fromkeys(
        """content_commitment key_encipherment data_encipherment key_agreement encipher_only
        decipher_only""".split(),
        False,
    )
    usage = x509.KeyUsage(
        digital_signature=not authority, key_cert_sign=authority, crl_sign=authority, **signing
    )
    builder = (
        builder.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
    )
    alternatives = [_general_name(name) for name in names]
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    certificate = builder.sign(issuer_key, hashes.SHA256())
    return PrivateCertificate(certificate, key, _chain(issuer))


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _chain(issuer: PrivateCertificate | None) -> tuple[Certificate, ...]:
    if issuer is None or issuer.issuer == issuer.subject:
        return ()
    return (issuer, *issuer.chain)
