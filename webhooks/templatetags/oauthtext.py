"""How a grant and the exchanges with an authorization server are shown."""

from datetime import datetime, timedelta

from django import template
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from webhooks.models import (
    Credential,
    ExchangeKind,
    GrantType,
    OAuthExchange,
    OAuthToken,
    TokenState,
)
from webhooks.templatetags.interface import milliseconds

register = template.Library()

# Time enough for somebody to come back from a few days off.
_WARNING = timedelta(days=7)
# Checks of earlier versions were kept as discoveries.
_CHECKS = (ExchangeKind.CHECK, ExchangeKind.DISCOVERY)
_BLOCKED = (TokenState.NONE, TokenState.NEEDS_REAUTHORIZATION, TokenState.MISCONFIGURED)
# The class every answer ends in -> what people read, and the colour of its badge.
_RESULTS = {
    "ok": (gettext_lazy("Good"), "is-success"),
    "ok_with_warning": (gettext_lazy("Good, with a warning"), "is-success"),
    "transient": (gettext_lazy("Tried again later"), "is-warning"),
    "needs_reauthorization": (gettext_lazy("Needs re-authorization"), "is-danger"),
    "misconfigured": (gettext_lazy("Misconfigured"), "is-danger"),
}


@register.filter
def result_badge(exchange: OAuthExchange) -> SafeString | str:
    """Show how an exchange ended; what a check hears says nothing about the token."""
    if exchange.kind in _CHECKS:
        return ""
    label, css_class = _RESULTS.get(exchange.result, (exchange.result, "is-neutral"))
    return format_html('<span class="badge {}">{}</span>', css_class, label)


@register.filter
def step_name(exchange: OAuthExchange) -> str:
    """Name what was asked."""
    if exchange.kind in _CHECKS:
        return _("Check")
    return exchange.get_kind_display()


@register.filter
def grant_ends_at(token: OAuthToken | None, credential: Credential) -> datetime | None:
    """Return when a person must come back, if that is known and soon."""
    if (
        not token
        or token.state in _BLOCKED
        or credential.grant_type == GrantType.CLIENT_CREDENTIALS
    ):
        return None
    ends_at = token.refresh_token_expires_at if token.has_refresh_token() else token.expires_at
    is_soon = ends_at is not None and ends_at - timezone.now() < _WARNING
    return ends_at if is_soon else None


@register.filter
def took(exchange: OAuthExchange) -> str:
    """Return how long it took; a person at the provider takes minutes."""
    seconds = (exchange.duration_ms or 0.0) / 1000
    if seconds < 60:
        return milliseconds(exchange.duration_ms)
    return _("%(minutes)d min %(seconds)d s") % {
        "minutes": seconds // 60,
        "seconds": seconds % 60,
    }
