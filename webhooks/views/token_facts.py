"""What the token panel shows beside the token itself: the grant's end, the last exchanges."""

from datetime import timedelta
from typing import Any

from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from webhooks.models import GrantType, OAuthExchange, OAuthToken, TokenState, Webhook

_SHOWN = 10
# Time enough for somebody to be back from a holiday of a few days.
GRANT_WARNING = timedelta(days=7)
_BLOCKED = (TokenState.NONE, TokenState.NEEDS_REAUTHORIZATION, TokenState.MISCONFIGURED)


def facts(webhook: Webhook, token: OAuthToken | None) -> dict[str, Any]:
    is_saved = webhook.pk is not None
    exchanges = OAuthExchange.objects.filter(webhook_id=webhook.pk)[:_SHOWN] if is_saved else []
    return {
        "exchanges": exchanges,
        "grant_ends_at": grant_ends_at(token),
        "is_machine": webhook.grant_type == GrantType.CLIENT_CREDENTIALS,
    }


def stored(released: int) -> str:
    """Say that there is a token, and what goes out with it."""
    sentence = _("The access token was stored.")
    if not released:
        return sentence
    sending = ngettext(
        "%(count)d delivery that waited for it is being sent.",
        "%(count)d deliveries that waited for it are being sent.",
        released,
    )
    return f"{sentence} {sending % {'count': released}}"


def grant_ends_at(token: OAuthToken | None) -> Any:
    """Return when a person must come back, if that is known and soon, else None."""
    if token is None or token.state in _BLOCKED:
        return None
    ends_at = token.refresh_token_expires_at if token.has_refresh_token() else token.expires_at
    if ends_at is None or token.webhook.grant_type == GrantType.CLIENT_CREDENTIALS:
        return None
    return ends_at if ends_at - timezone.now() < GRANT_WARNING else None
