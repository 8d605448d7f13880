"""Every page of the site, for tests that hold for all of them, and the rows they show.

A new URL fails `tests/ui/test_pages.py` until it is listed here.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from django.urls import URLPattern, URLResolver, get_resolver, reverse

HTMX = {"HX-Request": "true"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Primary keys of the rows that the pages show."""

    webhook: int
    # A webhook with OAuth 2.0, a revoked grant and held deliveries.
    oauth: int
    connection: int
    delivery: str
    test: str
    event: str
    resend: int
    exchange: int
    entry: int
    version: int
    channel: int
    key: int
    user: int
    group: int


@dataclass(frozen=True, slots=True)
class SitePage:
    """A URL name, the scene's keys that it takes, and a query string."""

    name: str
    keys: tuple[str, ...] = ()
    query: str = ""
    # Only for htmx requests.
    is_part: bool = False

    def __str__(self) -> str:
        """Return the test id."""
        return "-".join(filter(None, [self.name, *self.keys, self.query]))

    def address(self, scene: Scene) -> str:
        path = reverse(self.name, args=[getattr(scene, key, key) for key in self.keys])
        known = {field.name: getattr(scene, field.name) for field in fields(scene)}
        return f"{path}?{self.query.format(**known)}" if self.query else path

    @property
    def headers(self) -> dict[str, str]:
        return HTMX if self.is_part else {}


def part(name: str, *keys: str, query: str = "") -> SitePage:
    return SitePage(name, keys, query, is_part=True)


_OWN = [
    SitePage("login"),
    SitePage("webhooks:list"),
    SitePage("webhooks:list", query="status=attention&sort=-sent&q=c"),
    SitePage("webhooks:create"),
    SitePage("webhooks:import"),
    SitePage("webhooks:alerts"),
    *(SitePage("webhooks:alert_add", (kind,)) for kind in ("email", "telegram", "slack")),
    SitePage("webhooks:alert_edit", ("channel",)),
    SitePage("webhooks:alert_delete", ("channel",)),
    SitePage("webhooks:help_events", query="q=caller"),
    SitePage("webhooks:help_event", ("call.incoming.after",)),
    SitePage("webhooks:help_receivers"),
    SitePage("webhooks:status"),
    SitePage("webhooks:reveal_secret", ("webhook",)),
    SitePage("webhooks:trash"),
    SitePage("webhooks:revert", ("webhook", "version")),
    SitePage("webhooks:time_zone"),
    SitePage("webhooks:connections"),
    SitePage("webhooks:connection_create"),
    SitePage("webhooks:grants"),
    SitePage("webhooks:connection", ("connection",)),
    SitePage("webhooks:connection_edit", ("connection",)),
    SitePage("webhooks:connection_audit", ("connection",)),
    SitePage("webhooks:connection_delete", ("connection",)),
    SitePage("webhooks:detail", ("webhook",)),
    SitePage("webhooks:detail", ("webhook",), "period=30d"),
    SitePage("webhooks:detail", ("oauth",)),
    SitePage("webhooks:audit", ("webhook",)),
    SitePage("webhooks:edit", ("webhook",)),
    SitePage("webhooks:edit", ("oauth",)),
    SitePage("webhooks:why_not_sent", ("webhook",)),
    SitePage("webhooks:delete", ("webhook",)),
    SitePage("webhooks:test_result", ("webhook", "test")),
    SitePage("webhooks:deliveries"),
    SitePage("webhooks:deliveries", query="webhook={webhook}"),
    SitePage("webhooks:deliveries", query="status=failed&period=week"),
    SitePage("webhooks:deliveries", query="webhook={webhook}&status=failed&code=5xx"),
    SitePage("webhooks:deliveries", query="status=pending"),
    SitePage("webhooks:deliveries", query="q={event}"),
    SitePage("webhooks:deliveries", query="before={delivery}"),
    SitePage("webhooks:event", ("event",)),
    SitePage("webhooks:search"),
    SitePage("webhooks:search", query="q=web"),
    SitePage("webhooks:deliveries", query="q=380671234567"),
    SitePage("webhooks:delivery", ("delivery",)),
    SitePage("webhooks:delivery_edit", ("delivery",)),
    SitePage("webhooks:resend_create", ("webhook",)),
    SitePage("webhooks:resend_create_for_all"),
    SitePage("webhooks:resend", ("resend",)),
    part("webhooks:charts", "webhook", query="period=30d"),
    part("webhooks:search", query="q=380671234567"),
    part("webhooks:recent", "webhook"),
    part("webhooks:connection_panel"),
]
_LOG = ("auditentry", "delivery", "event", "oauthexchange")
_ROW = {
    "auditentry": "entry",
    "delivery": "delivery",
    "event": "event",
    "oauthexchange": "exchange",
}
_ADMIN = [
    SitePage("admin:index"),
    SitePage("admin:password_change"),
    *(SitePage(f"admin:webhooks_{name}_changelist") for name in (*_LOG, "apikey", "webhook")),
    *(SitePage(f"admin:webhooks_{name}_change", (_ROW[name],)) for name in _LOG),
    SitePage("admin:webhooks_delivery_changelist", query="status=failed&webhook={webhook}"),
    SitePage("admin:webhooks_delivery_changelist", query="q={event}"),
    SitePage("admin:webhooks_apikey_add"),
    SitePage("admin:webhooks_apikey_change", ("key",)),
]
# Django's own pages, in the site's design.
_ACCOUNTS = [
    page
    for name in ("user", "group")
    for page in (
        SitePage(f"admin:auth_{name}_changelist"),
        SitePage(f"admin:auth_{name}_add"),
        SitePage(f"admin:auth_{name}_change", (name,)),
        SitePage(f"admin:auth_{name}_history", (name,)),
        SitePage(f"admin:auth_{name}_delete", (name,)),
    )
] + [SitePage("admin:auth_user_password_change", ("user",)), SitePage("admin:password_change_done")]
PAGES = [*_OWN, *_ADMIN, *_ACCOUNTS]

# URLs whose GET shows no page, and why.
NO_PAGES: dict[str, str] = {
    "healthz": "for machines",
    "readyz": "for machines",
    "home": "leads to the first page that one may open",
    "webhooks:api_events": "for machines",
    "webhooks:api_not_found": "for machines",
    "webhooks:session": "for scripts",
    "webhooks:deliveries_export": "a file",
    "webhooks:delivery_body": "a file",
    "webhooks:oauth_callback": "leads to the form",
    "webhooks:public_key": "for providers",
    "webhooks:device": "leads to the form without a code that waits; tests/ui/webhook_form",
    "webhooks:resend_selected": "leads to the log without a selection",
    "webhooks:credential": "leads to the page of its webhook or connection",
    "admin:login": "leads on for who is logged in; the site has a login page of its own",
    "admin:autocomplete": "for scripts",
    "admin:jsi18n": "for scripts",
    "set_language": "leads back",
    "admin:view_on_site": "no row has a page on another site",
    "admin:app_list": "a part of the index",
    "admin:webhooks_webhook_change": "leads to the webhook's page",
    **{
        f"admin:webhooks_{name}_{action}": "nobody does this by hand"
        for name in (*_LOG, "webhook")
        for action in ("add", "delete")
    },
    "admin:webhooks_apikey_delete": "a revoked key stays",
    **{
        f"admin:webhooks_{name}_history": "the audit trail tells it"
        for name in (*_LOG, "webhook", "apikey")
    },
}


def url_names() -> list[str]:
    """Return every URL name of the site that a person or a program can request."""
    return sorted({name for name in _walk(get_resolver(), "") if not name.endswith("None")})


def _walk(resolver: Any, namespace: str) -> Iterator[str]:
    for pattern in resolver.url_patterns:
        if isinstance(pattern, URLResolver):
            inner = f"{pattern.namespace}:" if pattern.namespace else ""
            yield from _walk(pattern, namespace + inner)
        elif isinstance(pattern, URLPattern):
            yield f"{namespace}{pattern.name}"
