"""What the token panel shows beside the token itself: the grant's end, the last exchanges."""

from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from webhooks.models import Credential, GrantType, OAuthExchange, OAuthToken
from webhooks.templatetags.oauthtext import grant_ends_at

_SHOWN = 10


def facts(credential: Credential, token: OAuthToken | None) -> dict[str, Any]:
    is_saved = credential.pk is not None
    exchanges = OAuthExchange.objects.filter(credential=credential)[:_SHOWN] if is_saved else []
    return {
        "exchanges": exchanges,
        "grant_ends_at": grant_ends_at(token, credential),
        "is_machine": credential.grant_type == GrantType.CLIENT_CREDENTIALS,
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
