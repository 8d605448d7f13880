"""How exchanges with an authorization server are shown: their class and how long they took."""

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from webhooks.models import ExchangeKind, OAuthExchange
from webhooks.templatetags.interface import milliseconds

register = template.Library()

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
    if exchange.kind == ExchangeKind.DISCOVERY:
        return ""
    label, css_class = _RESULTS.get(exchange.result, (exchange.result, "is-neutral"))
    return format_html('<span class="badge {}">{}</span>', css_class, label)


@register.filter
def step_name(exchange: OAuthExchange) -> str:
    """Name what was asked."""
    if exchange.kind == ExchangeKind.DISCOVERY:
        return _("Check")
    return exchange.get_kind_display()


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
