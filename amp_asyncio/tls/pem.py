"""PEM and DER: loading certificates and keys from files and bytes.

`cryptography` parses them; this module adds clear errors. They name the file, say what is wrong with it
and which format it looks like, and never show bytes that may be a key. All of them are `ValueError`,
except `OSError` for a file that cannot be read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_private_key

__all__ = ["Source", "as_bytes", "der_certificate", "der_key", "pem_certificates", "pem_key", "read"]

#: A certificate or a key: its bytes, or the path of a file that contains them.
Source = bytes | str | os.PathLike[str]

# Also matches a block with a missing or different END line, so that `cryptography` reports it as bad.
_PEM_BLOCK = re.compile(rb"-----BEGIN ([^\r\n-]+)-----(?:[^-]++|-(?!----))*+(?:-----END \1-----)?")


def read(source: Source) -> tuple[bytes, str]:
    """Return the bytes of `source`, and what to call it in errors."""
    if isinstance(source, bytes):
        return source, "the bytes given"
    path = os.fsdecode(source)
    if "-----BEGIN " in path or "\n" in path:
        # It may be a key, which must not appear in the error about a missing file.
        raise ValueError("a str is the path of a file; pass PEM itself as bytes")
    return Path(path).read_bytes(), path


def _pem_blocks(data: bytes, label: bytes) -> list[bytes]:
    """Return the PEM blocks whose label ends with `label`, in order."""
    return [found[0] for found in _PEM_BLOCK.finditer(data) if found[1].endswith(label)]


def pem_certificates(data: bytes, where: str) -> list[x509.Certificate]:
    """Return the certificates in `data`, in order; raise `ValueError` if it has none."""
    blocks = _pem_blocks(data, b"CERTIFICATE")
    if not blocks:
        raise ValueError(f"no PEM certificate in {where}{_resemblance(data)}")
    return [
        _loaded_certificate(x509.load_pem_x509_certificate, block, f"certificate {number} in {where}")
        for number, block in enumerate(blocks, start=1)
    ]


def der_certificate(data: bytes, where: str) -> x509.Certificate:
    """Return the certificate whose DER is `data`."""
    what = f"the DER certificate in {where}{_resemblance(data)}"
    return _loaded_certificate(x509.load_der_x509_certificate, data, what)


def _loaded_certificate(
    load: Callable[[bytes], x509.Certificate], data: bytes, what: str
) -> x509.Certificate:
    try:
        return load(data)
    except (ValueError, x509.InvalidVersion) as error:
        raise ValueError(f"{what} is malformed") from error


def pem_key(data: bytes, where: str, password: str | bytes | None) -> PrivateKeyTypes:
    """Return the private key in `data`; raise `ValueError` unless it has exactly one."""
    blocks = _pem_blocks(data, b"PRIVATE KEY")
    if not blocks:
        raise ValueError(f"no PEM private key in {where}{_resemblance(data)}")
    if len(blocks) > 1:
        raise ValueError(f"{len(blocks)} private keys in {where}: it must have exactly one")
    return _loaded_key(load_pem_private_key, blocks[0], where, password)


def der_key(data: bytes, where: str, password: str | bytes | None) -> PrivateKeyTypes:
    """Return the private key whose DER is `data`."""
    return _loaded_key(load_der_private_key, data, where, password)


def _loaded_key(
    load: Callable[[bytes, Any], PrivateKeyTypes],
    data: bytes,
    where: str,
    password: str | bytes | None,
) -> PrivateKeyTypes:
    what = f"the private key in {where}"
    try:
        return load(data, as_bytes(password) if password else None)
    except TypeError as error:
        # `cryptography` raises this if the password is missing or not needed.
        if password:
            raise ValueError(f"{what} is not encrypted, but a password was given") from error
        raise ValueError(f"{what} is encrypted, and no password was given") from error
    except (UnsupportedAlgorithm, ValueError) as error:
        unusable = "malformed, or of an unsupported kind"
        if password:
            raise ValueError(f"{what}: the password is wrong, or the key is {unusable}") from error
        raise ValueError(f"{what} is {unusable}{_resemblance(data)}") from error


def as_bytes(password: str | bytes) -> bytes:
    """Return a password as the bytes that `cryptography` expects, in UTF-8."""
    return password.encode() if isinstance(password, str) else password


def _resemblance(data: bytes) -> str:
    """Return the end of an error message that says which format `data` looks like, or nothing."""
    if b"-----BEGIN " in data:
        return " (which contains PEM)"
    return " (which looks like DER)" if data[:1] == b"\x30" else ""
