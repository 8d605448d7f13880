"""OAuth 2.0: obtain, store, refresh and revoke the access token of a credential.

Other packages use the names below: `begin_authorization` and `finish_authorization` for the browser
flow, `usable_token` and `current_token` for deliveries, `sentence` for stored errors. Start reading
at `tokens`.
"""

from webhooks.oauth.assertions import make_key, public_keys, public_pem
from webhooks.oauth.authorize import begin_authorization, finish_authorization
from webhooks.oauth.callback import hashed, pending_credential
from webhooks.oauth.device import begin_device_authorization, pending_device, poll_device
from webhooks.oauth.discovery import discover, fill
from webhooks.oauth.endpoints import (
    check_callback_url,
    default_callback_url,
    fingerprint,
    public_keys_url,
)
from webhooks.oauth.errors import (
    SENTENCES,
    AuthorizationError,
    MisconfiguredError,
    TokenUnavailableError,
    sentence,
)
from webhooks.oauth.parameters import (
    RESERVED_CLAIMS,
    RESERVED_IN_AUTHORIZATION,
    RESERVED_IN_REFRESH,
    as_mapping,
    check_headers,
    check_parameters,
    reserved_in,
)
from webhooks.oauth.providers import PRESETS, ProviderPreset
from webhooks.oauth.revocation import IssuedToken, revoke, stored_tokens
from webhooks.oauth.tokens import (
    UsableToken,
    check_receiver,
    clear_token,
    current_token,
    drop_if_changed,
    keep_replaced_secret,
    record_refusal,
    record_refusals,
    record_successes,
    refresh,
    refresh_expiring,
    refresh_margin,
    restore_secret,
    store_refresh_token,
    usable_token,
)
from webhooks.oauth.troubleshoot import diagnose, examine, try_authentication
