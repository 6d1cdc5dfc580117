"""TLS failures: which of them are about a certificate."""

from __future__ import annotations

import ssl

from ..errors import PeerVerifyError

__all__ = ["certificate_error"]


def certificate_error(error: BaseException | None) -> PeerVerifyError | None:
    """Return a `PeerVerifyError` from an `ssl.SSLError` that is about a certificate; else None.

    OpenSSL says so in the exception's class if we rejected the peer's certificate, and only in the name
    of the alert if the peer rejected ours.
    """
    reason = str(getattr(error, "reason", ""))
    if not isinstance(error, ssl.SSLCertVerificationError) and not (
        isinstance(error, ssl.SSLError) and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason)
    ):
        return None
    rejected = PeerVerifyError(f"a certificate was not accepted: {error}")
    rejected.__cause__ = error
    return rejected
