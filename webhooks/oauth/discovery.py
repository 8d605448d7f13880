"""Finds the field values for a provider: from its preset, or from its issuer's metadata.

Discovered values are shown to the admin before anything is saved. Metadata that names another
issuer than the requested one is not used. Source: RFC 8414, OpenID Connect Discovery 1.0.
"""

import re
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from django.utils.translation import gettext as _

from webhooks import network
from webhooks.models import ClientAuthentication, GrantType
from webhooks.oauth import exchange_log, token_response
from webhooks.oauth.client import MAX_BYTES, TOTAL_SECONDS
from webhooks.oauth.endpoints import checked_endpoint
from webhooks.oauth.errors import (
    Grant,
    MisconfiguredError,
    UnusableResponseError,
    sentence,
    stored,
)
from webhooks.oauth.providers import PRESETS, Question

_ANSWER = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,200}[A-Za-z0-9])?")
_OPENID = "/.well-known/openid-configuration"
_OAUTH = "/.well-known/oauth-authorization-server"
_WELL_KNOWN = re.compile(rf"(?:{re.escape(_OPENID)}|{re.escape(_OAUTH)})(?=/|$)")
# Client authentication methods in order of preference.
# Source: RFC 8414 section 2, RFC 8705 section 2, OpenID Connect Core 1.0 section 9.
_METHODS = {
    "client_secret_basic": ClientAuthentication.BASIC_HEADER.value,
    "client_secret_post": ClientAuthentication.REQUEST_BODY.value,
    "private_key_jwt": ClientAuthentication.KEY_JWT.value,
    "client_secret_jwt": ClientAuthentication.SECRET_JWT.value,
    "tls_client_auth": ClientAuthentication.CERTIFICATE.value,
    "self_signed_tls_client_auth": ClientAuthentication.CERTIFICATE.value,
}
# The name of each grant in the metadata, and of the endpoint for Auth URL (RFC 8628 section 4).
_GRANTS = {
    GrantType.AUTHORIZATION_CODE: (Grant.CODE, "authorization_endpoint"),
    GrantType.DEVICE_CODE: (Grant.DEVICE_CODE, "device_authorization_endpoint"),
    GrantType.CLIENT_CREDENTIALS: (Grant.CLIENT_CREDENTIALS, ""),
    GrantType.JWT_BEARER: (Grant.JWT_BEARER, ""),
}
# Alternative endpoints that require a client certificate (RFC 8705 section 5).
_ALIASES = "mtls_endpoint_aliases"


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovered:
    """A provider's metadata, as values by field name."""

    fields: dict[str, Any]
    # Sentences for the admin about what was found.
    notes: tuple[str, ...] = field(default_factory=tuple)
    scopes: tuple[str, ...] = field(default_factory=tuple)


def fill(key: str, answers: dict[str, str]) -> dict[str, Any]:
    """Return the field values of a provider's preset. Errors: MisconfiguredError."""
    preset = PRESETS.get(key)
    if preset is None:
        raise MisconfiguredError(_("“%s” is not a known provider.") % key[:32])
    given = {question.name: _answer(question, answers) for question in preset.questions}
    filled = {name: _filled(value, given) for name, value in preset.fields.items()}
    return {**filled, "provider": key}


def discover(
    issuer: str,
    *,
    grant: GrantType = GrantType.AUTHORIZATION_CODE,
    authentication: str = "",
    total_seconds: float = TOTAL_SECONDS,
) -> Discovered:
    """Return the endpoints of an issuer for a `grant`. Errors: MisconfiguredError.

    The chosen client `authentication` is kept if the provider supports it.
    """
    # People paste the URL of the metadata itself, which may end with the issuer's path.
    issuer = _WELL_KNOWN.sub("", issuer.strip(), count=1)
    target = checked_endpoint(issuer, "issuer")
    if "?" in target.url:
        raise MisconfiguredError(_("An issuer has no query (?)."))
    problem, other = "", ""
    for url in _addresses(issuer):
        document, reason = _fetch(url, total_seconds / 3)
        if document is None:
            problem = problem or reason
            continue
        named = document.get("issuer")
        if isinstance(named, str) and _is_any_tenant(named, issuer):
            named = issuer
        if not isinstance(named, str) or not named:
            # An error response, for example: the metadata may be at the next URL.
            problem = problem or _("The provider's metadata has no %s.") % "issuer"
            continue
        if issuer not in (named, f"{named}/", named.removesuffix("/")):
            # The server may return its own metadata at every path: the right one may be next.
            other = other or named
            continue
        found = _read(document, named, grant, authentication)
        if named == issuer:
            return found
        note = _("The provider calls itself “%s”, which is taken as Issuer: the slash counts.")
        return replace(found, notes=(note % exchange_log.clean(named, limit=200), *found.notes))
    if other:
        raise MisconfiguredError(
            _("The provider calls itself “%(named)s”, not “%(issuer)s”. Enter exactly that.")
            % {"named": exchange_log.clean(other, limit=200), "issuer": issuer}
        )
    raise MisconfiguredError(
        _("No provider metadata was found: %s Fill in the addresses by hand.") % problem
    )


def _is_any_tenant(named: str, issuer: str) -> bool:
    """Return whether the metadata is for all tenants, such as Microsoft's "common".

    Its issuer then has a placeholder in place of the tenant.
    """
    before, placeholder, after = named.partition("{tenantid}")
    tenant = issuer.removeprefix(before).removesuffix(after)
    return bool(placeholder) and f"{before}{tenant}{after}" == issuer and tenant.isalnum()


def _addresses(issuer: str) -> list[str]:
    """Return the possible metadata URLs: RFC 8414 sections 3.1 and 5, OpenID Discovery 4.1."""
    parts = urlsplit(issuer)
    base, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    addresses = [f"{base}{path}{_OPENID}", f"{base}{_OAUTH}{path}", f"{base}{_OPENID}{path}"]
    return list(dict.fromkeys(addresses))


def _fetch(url: str, seconds: float) -> tuple[dict[str, Any] | None, str]:
    """Return the metadata, or None and the reason."""
    session = network.GuardedSession(total_seconds=seconds, max_bytes=MAX_BYTES)
    try:
        answer = session.get(url, headers={"Accept": "application/json"}, allow_redirects=False)
    except network.TransferError:
        return None, _("%s cannot be reached.") % url
    except network.NetworkError as error:
        return None, error.reason
    if answer.status_code != 200:
        return None, _("%(url)s answered %(status)d.") % {"url": url, "status": answer.status_code}
    coding, kind = (answer.headers.get(f"Content-{name}", "") for name in ("Encoding", "Type"))
    body = network.unpack(answer.content, coding, max_bytes=MAX_BYTES)
    try:
        return token_response.read_body(body, kind), ""
    except UnusableResponseError:
        return None, _("%s holds no JSON document.") % url


def _read(
    document: dict[str, Any], issuer: str, grant: GrantType, authentication: str
) -> Discovered:
    fields: dict[str, Any] = {"issuer": issuer}
    notes = [*_authentication(document, fields, authentication), *_pkce(document, fields)]
    addresses, aliases = document, document.get(_ALIASES)
    by_certificate = fields.get("client_authentication") == ClientAuthentication.CERTIFICATE
    if by_certificate and isinstance(aliases, dict):
        named = {key: one for key, one in aliases.items() if one and isinstance(one, str)}
        addresses = {**document, **named}
    grant_name, auth_endpoint = _GRANTS[grant]
    for name, key, is_required in (
        *([("auth_url", auth_endpoint, True)] if auth_endpoint else []),
        ("token_url", "token_endpoint", True),
        ("revocation_url", "revocation_endpoint", False),
    ):
        value = addresses.get(key)
        if not isinstance(value, str) or not value.strip():
            if is_required:
                raise MisconfiguredError(_("The provider's metadata has no %s.") % key)
            continue
        try:
            fields[name] = _allowed_endpoint(value.strip(), key)
        except MisconfiguredError as error:
            if is_required:
                raise
            left_out = _("The provider's %(key)s is left out: %(reason)s")
            notes.append(left_out % {"key": key, "reason": error})
    flows, grants = _listed(document, "response_types"), _listed(document, "grant_types")
    if grant == GrantType.AUTHORIZATION_CODE and flows is not None and "code" not in flows:
        notes.append(_("The provider does not offer the code flow."))
    if grants is not None and grant_name not in grants:
        notes.append(_("The provider does not offer the grant “%s”.") % grant.label)
    # RFC 9207 section 3.
    fields["requires_issuer"] = (
        document.get("authorization_response_iss_parameter_supported") is True
    )
    if (
        grant == GrantType.AUTHORIZATION_CODE
        and document.get("require_pushed_authorization_requests") is True
    ):
        notes.append(sentence(stored("par_needed")))
    scopes = _listed(document, "scopes") or []
    return Discovered(fields=fields, notes=tuple(notes), scopes=tuple(scopes[:200]))


def _listed(document: dict[str, Any], name: str) -> list[str] | None:
    """Return the list `NAME_supported`, also from a text with commas or spaces, or None."""
    named = document.get(f"{name}_supported")
    if isinstance(named, str):
        return named.replace(",", " ").split()
    return [one for one in named if isinstance(one, str)] if isinstance(named, list) else None


def _allowed_endpoint(url: str, key: str) -> str:
    """Return an endpoint URL whose host the address policy allows, or does not resolve now."""
    target = checked_endpoint(url, key)
    policy = network.Policy.from_settings()
    try:
        network.checked_addresses(target.host, target.port, policy, seconds=network.LOOKUP_SECONDS)
    except network.UnsafeURLError as error:
        raise MisconfiguredError(f"{key}: {error.reason}") from error
    except network.NameNotResolvedError:
        pass
    return target.url


def _authentication(document: dict[str, Any], fields: dict[str, Any], chosen: str) -> list[str]:
    """Set a supported client authentication and return notes; the default is Basic (RFC 8414)."""
    named = _listed(document, "token_endpoint_auth_methods")
    offered = ["client_secret_basic"] if named is None else [one.lower() for one in named]
    if isinstance(document.get(_ALIASES), dict):
        offered = [*offered, "tls_client_auth"]
    methods = [method for name, method in _METHODS.items() if name in offered]
    is_raw = chosen == ClientAuthentication.RAW_BASIC and "client_secret_basic" in offered
    if methods:
        fields["client_authentication"] = chosen if is_raw or chosen in methods else methods[0]
        return []
    if "none" in offered:
        return []
    names = ", ".join(offered)
    sentence = _("The provider takes neither a Basic Auth header nor credentials in the body.")
    wants = _("It wants %s, which is not supported here.")
    return [f"{sentence} {wants % exchange_log.clean(names, limit=200)}" if names else sentence]


def _pkce(document: dict[str, Any], fields: dict[str, Any]) -> list[str]:
    offered = _listed(document, "code_challenge_methods")
    # A server that does not list PKCE may support it, or ignores it (RFC 7636 section 5).
    fields["uses_pkce"] = offered is None or "S256" in map(str.upper, offered)
    return [] if fields["uses_pkce"] else [_("The provider does not offer PKCE with S256.")]


def _answer(question: Question, answers: dict[str, str]) -> str:
    answer = (answers.get(question.name) or question.default).strip()
    # People paste a whole URL where only the host is needed.
    answer = answer.removeprefix("https://").rstrip("/")
    is_known = not question.choices or answer in question.choices
    if not is_known or not _ANSWER.fullmatch(answer):
        raise MisconfiguredError(
            _("Fill in %(field)s, for example “%(example)s”.")
            % {"field": question.label, "example": question.example or question.default}
        )
    return answer


def _filled(value: Any, answers: dict[str, str]) -> Any:
    if isinstance(value, str):
        for name, answer in answers.items():
            value = value.replace(f"{{{name}}}", answer)
        return value
    if isinstance(value, dict):
        return {name: _filled(one, answers) for name, one in value.items()}
    # The caller may change its list; the preset's list must stay the same.
    return value.copy() if isinstance(value, list) else value
