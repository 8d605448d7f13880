"""OAuth 2.0: get, keep, lose and regain the access token of a credential.

Other modules use only these names. Must not know requests, views, forms or deliveries. Who waits
for a token is not known here either: after a token was stored, the caller releases what was held.
"""

from webhooks.oauth.authorize import (
    begin_authorization,
    delete_expired_requests,
    finish_authorization,
)
from webhooks.oauth.discovery import Discovered, discover
from webhooks.oauth.endpoints import check_callback_url, default_callback_url, fingerprint
from webhooks.oauth.errors import AuthorizationFailed, Misconfigured, TokenUnavailable
from webhooks.oauth.parameters import (
    RESERVED_IN_AUTHORIZATION,
    RESERVED_IN_TOKEN_REQUEST,
    check_parameters,
)
from webhooks.oauth.providers import PRESETS, Preset, fill
from webhooks.oauth.revocation import Given, clear_token, given_tokens, revoke
from webhooks.oauth.tokens import (
    UsableToken,
    authorization_header,
    drop_if_changed,
    refresh,
    refresh_expiring,
    refresh_margin,
    usable_token,
)
from webhooks.oauth.troubleshoot import (
    Diagnosis,
    Finding,
    Tried,
    diagnose,
    examine,
    try_authentication,
)

__all__ = [
    "PRESETS",
    "RESERVED_IN_AUTHORIZATION",
    "RESERVED_IN_TOKEN_REQUEST",
    "AuthorizationFailed",
    "Diagnosis",
    "Discovered",
    "Finding",
    "Given",
    "Misconfigured",
    "Preset",
    "TokenUnavailable",
    "Tried",
    "UsableToken",
    "authorization_header",
    "begin_authorization",
    "check_callback_url",
    "check_parameters",
    "clear_token",
    "default_callback_url",
    "delete_expired_requests",
    "diagnose",
    "discover",
    "drop_if_changed",
    "examine",
    "fill",
    "fingerprint",
    "finish_authorization",
    "given_tokens",
    "refresh",
    "refresh_expiring",
    "refresh_margin",
    "revoke",
    "try_authentication",
    "usable_token",
]
