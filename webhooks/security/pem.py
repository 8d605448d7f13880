"""Private keys and certificates in PEM, as people paste them: both in one text, in any order."""

import json

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from webhooks.security.errors import SecurityError

PrivateKey = RSAPrivateKey | EllipticCurvePrivateKey
# RFC 7518 section 3.3.
_LEAST_RSA_BITS = 2048
# RFC 7518 section 3.4; no other curve has an algorithm that providers accept.
_CURVES = frozenset({"secp256r1", "secp384r1", "secp521r1"})


class PEMError(SecurityError, ValueError):
    """The text has no usable key or certificate; `code` says which."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def private_key(text: str) -> PrivateKey:
    """Return the private key in a PEM, or in the JSON of a Google service account.

    Errors: PEMError, with the code "no_key", "short_key", "other_curve", or "encrypted_key" if a
    password protects it.
    """
    try:
        key = serialization.load_pem_private_key(_pem_of(text).encode(), None)
    except TypeError as error:
        raise PEMError("encrypted_key") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise PEMError("no_key") from error
    if not isinstance(key, PrivateKey):
        raise PEMError("no_key")
    if isinstance(key, RSAPrivateKey) and key.key_size < _LEAST_RSA_BITS:
        raise PEMError("short_key")
    if isinstance(key, EllipticCurvePrivateKey) and key.curve.name not in _CURVES:
        raise PEMError("other_curve")
    return key


def certificate(text: str) -> x509.Certificate | None:
    """Return the first certificate of a PEM, or None."""
    try:
        return x509.load_pem_x509_certificates(text.encode())[0]
    except ValueError:
        return None


def check_certificate(text: str) -> None:
    """Raise PEMError unless a text holds a certificate and the private key that belongs to it."""
    found = certificate(text)
    if found is None:
        raise PEMError("no_certificate")
    if found.public_key() != private_key(text).public_key():
        raise PEMError("other_key")


def _pem_of(text: str) -> str:
    # Some editors put a byte order mark first.
    text = text.strip().removeprefix("\ufeff")
    if not text.lstrip().startswith("{"):
        return text
    try:
        document = json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return str(document.get("private_key", "")) if isinstance(document, dict) else ""
