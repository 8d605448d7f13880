"""JWTs for client authentication and the JWT bearer grant, and the keys that sign them.

joserfc signs; this module sets the headers and claims. Source: RFC 7523. Keys are RSA or EC in PEM;
generated keys are RSA, which every provider accepts.
"""

import base64
import secrets as random
import time
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from joserfc import jwk, jws, jwt
from joserfc.errors import JoseError

from webhooks.models import ClientAuthentication, Credential
from webhooks.oauth.errors import MisconfiguredError, stored
from webhooks.security import pem

CLIENT_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
# Providers reject JWTs with a long lifetime; clocks differ by less than this.
_LIFE_SECONDS = 300
_RSA_BITS = 2048
# Entered claims with these names become header parameters (RFC 7515 section 4.1).
_HEADER = frozenset({"alg", "kid", "typ", "x5t", "x5t#S256"})
# Default algorithm by key type or curve (RFC 7518 section 3.1).
_ALGORITHMS = {"RSA": "RS256", "P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
_REGISTRY = jws.JWSRegistry(
    algorithms=[*_ALGORITHMS.values(), "RS384", "RS512", "PS256", "PS384", "PS512", "HS256"],
    strict_check_header=False,
)


def make_key() -> str:
    """Return a new private key in PEM."""
    return jwk.RSAKey.generate_key(_RSA_BITS, private=True).as_pem(private=True).decode()


def public_keys(credential: Credential) -> dict[str, Any]:
    """Return the JWK set that a provider verifies signatures with (RFC 7517 section 5).

    Algorithm and key ID are those in the header of the JWTs, by which the provider finds the key.
    """
    if not credential.client_key:
        return {"keys": []}
    header = _header(credential)
    more = {"use": "sig", "alg": header["alg"], "kid": header["kid"]}
    return {"keys": [{**_key_of(credential).as_dict(private=False), **more}]}


def public_pem(credential: Credential) -> str:
    """Return the public key in PEM, for providers where it is pasted; "" without a key."""
    return _key_of(credential).as_pem(private=False).decode() if credential.client_key else ""


def client_assertion(credential: Credential, audience: str) -> str:
    """Return the JWT that authenticates the client. Errors: MisconfiguredError."""
    claims: dict[str, Any] = {"iss": credential.client_id, "sub": credential.client_id}
    if credential.client_authentication == ClientAuthentication.SECRET_JWT:
        key = jwk.OctKey.import_key(credential.client_secret)
        return _signed(key, {"alg": "HS256"}, {**claims, "aud": audience})
    # Of the entered claims only `aud` applies; the others belong to the JWT of a JWT bearer grant.
    aud = credential.assertion_claims.get("aud", audience)
    return _signed(_key_of(credential), _header(credential), {**claims, "aud": aud})


def grant_assertion(credential: Credential, audience: str, scope: str) -> str:
    """Return the JWT that is exchanged for a token. Errors: MisconfiguredError."""
    claims = {"iss": credential.client_id, "sub": credential.client_id, "aud": audience}
    if scope:
        # Google and DocuSign read the scope from the JWT, others from the request parameters.
        claims["scope"] = scope
    own = {name: one for name, one in credential.assertion_claims.items() if name not in _HEADER}
    return _signed(_key_of(credential), _header(credential), {**claims, **own})


def _signed(key: Any, header: dict[str, Any], claims: dict[str, Any]) -> str:
    now = int(time.time())
    times = {"iat": now, "exp": now + _LIFE_SECONDS, "jti": random.token_urlsafe(24)}
    try:
        return jwt.encode(header, {**times, **claims}, key, registry=_REGISTRY)
    except (JoseError, ValueError, TypeError) as error:
        raise MisconfiguredError(stored("not_signed")) from error


def _key_of(credential: Credential) -> jwk.RSAKey | jwk.ECKey:
    try:
        key = pem.private_key(credential.client_key)
    except pem.PEMError as error:
        raise MisconfiguredError(stored("missing_field", field="client_key")) from error
    text = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    kind = jwk.RSAKey if isinstance(key, RSAPrivateKey) else jwk.ECKey
    return kind.import_key(text)


def _algorithm(key: jwk.RSAKey | jwk.ECKey) -> str:
    return _ALGORITHMS[str(key.curve_name) if isinstance(key, jwk.ECKey) else "RSA"]


def _header(credential: Credential) -> dict[str, Any]:
    key = _key_of(credential)
    header = {"alg": _algorithm(key), "kid": key.thumbprint()}
    if certificate := pem.certificate(credential.client_key):
        # Entra ID finds the key by the thumbprint of the certificate that was uploaded there.
        for name, digest in (("x5t", hashes.SHA1()), ("x5t#S256", hashes.SHA256())):  # noqa: S303
            thumbprint = base64.urlsafe_b64encode(certificate.fingerprint(digest))
            header[name] = thumbprint.rstrip(b"=").decode()
    own = {k: str(one) for k, one in credential.assertion_claims.items() if k in _HEADER}
    return {**header, **own}
