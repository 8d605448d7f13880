"""What ties a token to a webhook's settings: how it is sent, and when it must go."""

from webhooks.models import Webhook
from webhooks.oauth import rows
from webhooks.oauth.endpoints import fingerprint


def authorization_header(webhook: Webhook, access_token: str) -> str:
    """Return the Authorization value with this provider's prefix; none sends the bare token."""
    prefix = webhook.header_prefix.strip()
    return f"{prefix} {access_token}" if prefix else access_token


def drop_if_changed(old_fingerprint: str, webhook: Webhook) -> bool:
    """Erase the tokens when they belong to settings from before; say whether there were any.

    A corrected client secret keeps them: the grant is the client's, and a misconfigured token is
    tried again.
    """
    row = rows.read(webhook.pk)
    if row is None:
        return False
    if fingerprint(webhook) == old_fingerprint:
        rows.reopen(webhook.pk)
        return False
    had_token = row.has_access_token() or row.has_refresh_token()
    rows.drop(webhook.pk)
    return had_token
