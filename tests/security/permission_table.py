"""Who may do what: a line for every URL and admin action of the site.

A new URL without a line fails `tests/security/test_permissions.py`. The fields of a line:

- `needs`: permissions joined by "+", alternatives by "|"; "" requires only a login, NO_ONE marks
  URLs that refuse everyone, ANYONE those that require nothing.
- `get`, `post`: the status for those who may. Others get 403, or the login if not logged in.
- `data`: what the POST sends, made from the world's rows; `action`: the audit entry that it leaves,
  None when it changes nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.security.url_map import UrlWorld
from tests.ui.connections.test_views import fields
from tests.ui.webhook_form.test_forms import posted
from webhooks.models import Action

ANYONE, NO_ONE = "anyone", "nobody"
# Prefixes of the product's pages, and of those of one webhook or connection.
P = "integrations/webhooks/"
W, C, D, R = f"{P}<row:pk>/", f"{P}connections/<row:pk>/", f"{P}deliveries/", f"{P}resends/"
# A credential, private or shared.
K = f"{P}credentials/<row:pk>/"
DELIVERY = f"{D}<str:delivery_id>/"
A = "admin/"

Data = Callable[[UrlWorld], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One kind of request to one address."""

    route: str
    needs: str
    get: int
    post: int
    data: Data = field(default=lambda _world: {})
    action: Action | None = None
    headers: dict[str, str] = field(default_factory=dict)
    # Status for users without the permission; 403 unless the URL hides that it exists.
    denied: int = 403
    # What POST needs, if it differs from what GET needs.
    post_needs: str = ""
    # Which row of the world is in the URL, if it is not the usual one.
    pk: str = ""
    # Status of GET for staff, if it differs from that for everyone else.
    staff_get: int = 0
    # GET writes an audit entry as well.
    get_action: Action | None = None
    # Distinguishes lines of the same URL.
    label: str = ""

    def __str__(self) -> str:
        return f"/{self.route} {self.label}".strip()


def line(route: str, needs: str, get: int, post: int, **more: Any) -> Line:
    return Line(route=route, needs=needs, get=get, post=post, **more)


HTMX = {"HTTP_HX_REQUEST": "true"}
SEND = "view_delivery+test_webhook"

OPEN = [
    line("healthz", ANYONE, 200, 405),
    line("readyz", ANYONE, 503, 405),
    line("", "", 302, 405),
    line("login/", ANYONE, 200, 200),
    line("logout/", ANYONE, 405, 302),
    # Django's own view: it redirects back, and a POST sets a cookie.
    line("language/", ANYONE, 302, 302),
    line("api/v1/events", ANYONE, 405, 401),
    line("api/v1/events/batch", ANYONE, 405, 401),
    line("^[/]*api(?![^/])", ANYONE, 404, 404),
    line(f"{P}oauth/keys/<slug:uid>.<slug:form>", ANYONE, 404, 405),
    # Its response without a state is the same for everyone: test_views_authorization.
    line(f"{P}oauth/callback/", ANYONE, 303, 405),
    # Without htmx these redirect to the page, which requires a login.
    line(f"{W}charts/", ANYONE, 302, 405),
    line(f"{W}recent/", ANYONE, 302, 405),
]

LOOKING = [
    # A form asks whether its user is still logged in.
    line(f"{P}session/", "", 200, 405),
    # A person's own preference, kept in their browser.
    line(f"{P}time-zone/", "", 200, 302, data=lambda _: {"time_zone": "Europe/Kyiv"}),
    line(P, "view_webhook", 200, 405),
    line(W, "view_webhook", 200, 405),
    line(f"{W}charts/", "view_webhook", 200, 405, headers=HTMX, label="htmx"),
    line(f"{W}recent/", "view_webhook", 200, 405, headers=HTMX, label="htmx"),
    line(f"{W}changes/", "view_webhook", 200, 405),
    line(f"{W}why-not-sent/", "view_webhook", 200, 405),
    line(D, "view_delivery", 200, 405),
    line(f"{P}search/", "", 200, 405),
    line(f"{P}events/<str:event_id>/", "view_delivery", 200, 405),
    line(f"{D}views/", "view_delivery", 405, 302,
         data=lambda _: {"name": "Mine", "query": "status=failed"}),
    line(f"{D}views/<row:pk>/delete/", "view_delivery", 405, 404),
    line(f"{D}export.csv", "view_delivery", 200, 405, get_action=Action.EXPORTED),
    line(DELIVERY, "view_delivery", 200, 405),
    line(f"{DELIVERY}attempts/<row:attempt_id>/<str:part>.bin", "view_delivery+view_payload",
         200, 405),
    line(f"{R}<row:pk>/", "view_delivery", 200, 405),
]  # fmt: skip

EDITING = [
    line(f"{P}new/", "add_webhook", 200, 302, data=lambda _: posted(), action=Action.CREATED),
    line(f"{P}new/", "add_webhook", 200, 303, label="and authorize",
         post_needs="add_webhook+authorize_webhook", action=Action.CREATED,
         data=lambda world: posted(**_oauth(world), action="authorize")),
    line(f"{W}edit/", "change_webhook", 200, 302, action=Action.CHANGED,
         data=lambda world: posted(**_oauth(world), name="Renamed")),
    line(f"{W}edit/", "change_webhook", 200, 302, action=Action.PAUSED, label="pause",
         data=lambda world: posted(**_oauth(world), is_active=None, event_types=["call.*"])),
    line(f"{W}pause/", "change_webhook", 405, 302, action=Action.PAUSED),
    line(f"{W}resume/", "change_webhook", 405, 302, action=Action.RESUMED, pk="paused"),
    line(f"{W}duplicate/", "add_webhook+view_webhook", 405, 302, action=Action.CREATED),
    line(f"{W}delete/", "delete_webhook", 200, 302, action=Action.DELETED),
    line(f"{W}signing-secret/rotate/", "change_webhook", 405, 302, action=Action.SECRET_ROTATED),
    line(f"{W}alerts/test/", "change_webhook", 405, 200, action=Action.TESTED,
         data=lambda _: posted(alert_recipients="ops@example.com")),
    line(f"{W}blocking/<str:delivery_id>/cancel/", "change_webhook", 405, 302,
         action=Action.CANCELLED),
    line(f"{P}filter/", "add_webhook|change_webhook", 405, 200),
    line(f"{P}parameters/", "add_webhook", 405, 200, label="new"),
    line(f"{P}parameters/", "change_webhook", 405, 200, label="saved",
         data=lambda world: {"webhook": world.webhook.pk}),
    line(f"{P}preview/", "add_webhook", 405, 200, label="new", data=lambda _: posted()),
    line(f"{P}preview/", "change_webhook", 405, 200, label="saved",
         data=lambda world: posted(webhook=world.webhook.pk)),
    line(f"{P}bulk/", "view_webhook+change_webhook", 405, 302, label="pause",
         action=Action.PAUSED, data=lambda world: _bulk(world, "pause")),
    line(f"{P}bulk/", "view_webhook+change_webhook", 405, 302, label="resume",
         action=Action.RESUMED, data=lambda world: _bulk(world, "resume", held="send")),
    line(f"{P}bulk/", "view_webhook+delete_webhook", 405, 302, label="delete",
         action=Action.DELETED, data=lambda world: _bulk(world, "delete")),
    line(f"{P}help/events/", "", 200, 405),
    line(f"{P}help/events/<str:event_type>/", "", 200, 405),
    line(f"{P}help/receivers/", "", 200, 405),
    line(f"{P}status/", "view_webhook", 200, 405),
    line(f"{W}signing-secret/", "change_webhook", 200, 422),
    line(f"{P}alerts/", "view_webhook", 200, 405),
    line(f"{P}alerts/add/<str:kind>/", "view_webhook+change_webhook", 200, 302,
         action=Action.CREATED, data=lambda _: {"recipient": "ops@example.com"}),
    line(f"{P}alerts/<row:pk>/", "view_webhook+change_webhook", 200, 302, action=Action.CHANGED,
         data=lambda _: {"recipient": "all@example.com"}),
    line(f"{P}alerts/<row:pk>/test/", "change_webhook", 405, 302, action=Action.TESTED),
    line(f"{P}alerts/<row:pk>/delete/", "view_webhook+change_webhook", 200, 302,
         action=Action.DELETED),
    line(f"{P}trash/", "view_webhook", 200, 405),
    line(f"{P}trash/<row:pk>/restore/", "delete_webhook", 405, 302, action=Action.RESTORED),
    line(f"{P}trash/<row:pk>/purge/", "delete_webhook", 405, 302, action=Action.PURGED),
    line(f"{W}versions/<row:entry>/", "view_webhook+change_webhook", 200, 200),
    line(f"{P}export/", "view_webhook+change_webhook", 405, 200, action=Action.EXPORTED,
         data=lambda world: {"webhook": world.webhook.pk}),
    # The import itself follows from its preview: test_the_import_is_written_down.
    line(f"{P}import/", "view_webhook+add_webhook|view_webhook+change_webhook", 200, 422),
]  # fmt: skip

SENDING = [
    line(f"{W}tests/", "test_webhook", 405, 302, action=Action.TESTED),
    line(f"{W}tests/<str:delivery_id>/", "test_webhook", 200, 405),
    line(f"{W}blocking/<str:delivery_id>/send/", "test_webhook", 405, 302, action=Action.RESENT),
    line(f"{D}cancel/", "view_delivery+change_webhook", 405, 302, action=Action.CANCELLED,
         data=lambda world: {"delivery": world.delivery.pk}),
    line(f"{DELIVERY}cancel/", "view_delivery+change_webhook", 405, 302, action=Action.CANCELLED),
    line(f"{DELIVERY}resend/", SEND, 405, 302, action=Action.RESENT),
    line(f"{DELIVERY}edit/", f"{SEND}+view_payload", 200, 302, action=Action.EDITED_AND_RESENT,
         data=lambda _: {"payload": '{"call_id": "another"}'}),
    line(f"{W}resends/new/", SEND, 200, 302, action=Action.RESEND_STARTED, pk="paused",
         data=lambda _: {"scope": "all", "since": "day", "rate": "5"}),
    line(f"{R}new/all/", SEND, 200, 302, action=Action.RESEND_STARTED,
         data=lambda _: {"scope": "all", "since": "day", "rate": "5"}),
    line(f"{R}new/", SEND, 302, 302, action=Action.RESENT,
         data=lambda world: {"delivery": world.delivery.pk, "confirm": "1", "rate": "5"}),
    line(f"{R}<row:pk>/stop/", SEND, 405, 302, action=Action.RESEND_STOPPED),
]  # fmt: skip

AUTHORIZING = [
    # The entry is written when the token is stored: test_audit_of_changes, with a real provider.
    line(f"{K}authorize/", "authorize_webhook", 405, 303),
    line(f"{K}authorize/", "authorize_webhook+change_webhook", 405, 303, label="and save",
         action=Action.CHANGED,
         data=lambda world: posted(**_oauth(world), name="Renamed", draft="x")),
    line(f"{K}authorize/", "authorize_webhook+change_connection", 405, 303, label="connection",
         pk="connection", action=Action.CHANGED,
         data=lambda _: fields(name="Renamed", basic_password="", draft="x")),
    line(K, "", 302, 405),
    line(f"{K}token/refresh/", "authorize_webhook", 405, 303),
    line(f"{K}token/clear/", "authorize_webhook", 405, 303, action=Action.TOKEN_CLEARED),
    line(f"{K}token/paste/", "authorize_webhook", 405, 303),
    # Without a pending device code it redirects to the panel.
    line(f"{K}device/", "authorize_webhook", 303, 303),
    line(f"{K}secret/restore/", "authorize_webhook+change_webhook", 405, 303),
    line(f"{K}token/check/", "authorize_webhook", 405, 200),
    line(f"{K}token/authentication/", "authorize_webhook", 405, 200),
    line(f"{K}token/authentication/switch/", "authorize_webhook+change_webhook", 405, 303,
         action=Action.CHANGED, data=lambda _: {"client_authentication": "basic_header"}),
    line(f"{P}oauth/endpoints/",
         "add_webhook|change_webhook|add_connection|change_connection", 405, 200),
]  # fmt: skip

CONNECTIONS = [
    line(f"{P}connections/", "view_connection", 200, 405),
    line(f"{P}connections/grants/", "authorize_webhook", 200, 405),
    line(f"{P}connections/grants/combine/", "change_webhook+add_connection+authorize_webhook",
         405, 302),
    line(f"{P}connections/panel/", "view_connection", 200, 405),
    line(f"{P}connections/new/", "add_connection", 200, 302, action=Action.CREATED,
         data=lambda _: fields(name="Another")),
    line(C, "view_connection", 200, 405),
    line(f"{C}changes/", "view_connection", 200, 405),
    line(f"{C}edit/", "change_connection", 200, 302, action=Action.CHANGED,
         data=lambda _: fields(name="Renamed", basic_password="")),
    line(f"{C}delete/", "view_connection+delete_connection", 200, 302, action=Action.DELETED),
    line(f"{W}save-as-connection/", "change_webhook+add_connection", 405, 302,
         action=Action.CREATED),
]  # fmt: skip


def _read_only(model: str, *, change: int = 0) -> list[Line]:
    """Return the lines of a model's log pages in the admin, which are read-only."""
    look = f"view_{model}|change_{model}"
    base = f"{A}webhooks/{model}/"
    page = f"{base}<path:object_id>/change/"
    return [
        line(base, look, 200, 200),
        line(f"{base}add/", NO_ONE, 403, 403),
        line(f"{base}<path:object_id>/history/", look, 200, 200),
        line(f"{base}<path:object_id>/delete/", NO_ONE, 403, 403),
        line(page, look, change, change)
        if change
        else line(page, look, 200, 403, post_needs=NO_ONE),
        # Redirects to the page above, whatever the id.
        line(f"{base}<path:object_id>/", "", 302, 302),
    ]


def _step(step: str, permission: str, action: Action) -> Line:
    needs = f"view_delivery+{permission}"
    return line(f"{A}webhooks/delivery/<str:delivery_id>/{step}/", needs, 405, 302, action=action)


_MODELS = ("apikey", "auditentry", "delivery", "event", "oauthexchange", "webhook")
ADMIN = [
    line(A, "", 200, 200),
    # Staff who are already logged in are redirected.
    line(f"{A}login/", ANYONE, 200, 200, staff_get=302),
    line(f"{A}logout/", ANYONE, 302, 302, staff_get=405),
    line(f"{A}password_change/", "", 200, 200),
    line(f"{A}password_change/done/", "", 200, 405),
    # No field of ours has autocompletion.
    line(f"{A}autocomplete/", NO_ONE, 403, 405),
    line(f"{A}jsi18n/", "", 200, 405),
    # No model of ours has `get_absolute_url`.
    line(f"{A}r/<path:content_type_id>/<path:object_id>/", "", 404, 404),
    line(f"{A}<app_label>/",
         "|".join(f"view_{one}|change_{one}" for one in _MODELS) + "|add_apikey",
         200, 200, denied=404),
    line(f"{A}(?P<url>.*)$", "", 404, 404),
    *(one for model in ("auditentry", "oauthexchange") for one in _read_only(model)),
    # Pages of our own without a form: a POST changes nothing.
    *_read_only("delivery", change=200),
    *_read_only("event", change=200),
    *_read_only("webhook", change=302),
    _step("resend", "test_webhook", Action.RESENT),
    _step("cancel", "change_webhook", Action.CANCELLED),
    *(one for one in _read_only("apikey") if "add/" not in one.route),
    line(f"{A}webhooks/apikey/add/", "add_apikey", 200, 200, action=Action.KEY_ISSUED,
         data=lambda _: {"name": "Another", "scopes": ["events:write"]}),
    line(f"{A}webhooks/apikey/<row:pk>/revoke/", "change_apikey", 405, 302,
         action=Action.KEY_REVOKED),
]  # fmt: skip


def _accounts(model: str) -> list[Line]:
    """Return the lines of Django's own pages for users and groups."""
    base = f"{A}auth/{model}/"
    look = f"view_{model}|change_{model}"
    # After adding a user one sets the password, which is a change.
    add = "add_user+change_user" if model == "user" else "add_group"
    return [
        line(base, look, 200, 200),
        line(f"{base}add/", add, 200, 200),
        line(f"{base}<path:object_id>/history/", look, 200, 200),
        line(f"{base}<path:object_id>/delete/", f"delete_{model}", 200, 200),
        line(f"{base}<path:object_id>/change/", look, 200, 200, post_needs=f"change_{model}"),
        line(f"{base}<path:object_id>/", "", 302, 302),
    ]


ACCOUNTS = [
    *_accounts("user"),
    *_accounts("group"),
    line(f"{A}auth/user/<id>/password/", "change_user", 200, 200),
]
LINES = [
    *OPEN, *LOOKING, *EDITING, *SENDING, *AUTHORIZING, *CONNECTIONS, *ADMIN, *ACCOUNTS,
]  # fmt: skip


def _oauth(world: UrlWorld) -> dict[str, Any]:
    """Return the authorization fields of the world's webhook as its form sends them."""
    names = ("authorization_type", "token_name", "auth_url", "token_url", "client_id", "scope",
             "client_authentication")  # fmt: skip
    return {name: getattr(world.webhook.credential, name) for name in names}


def _bulk(world: UrlWorld, action: str, **more: str) -> dict[str, Any]:
    webhook = world.paused if action == "resume" else world.webhook
    return {"action": action, "webhook": webhook.pk, "is_confirmed": "1", **more}


@dataclass(frozen=True, kw_only=True)
class AdminAction:
    """An action on chosen rows of an admin list, offered only to those who may run it."""

    model: str
    name: str
    needs: str
    action: Action

    def __str__(self) -> str:
        return f"{self.model} {self.name}"


def _chosen(model: str, name: str, permission: str, action: Action) -> AdminAction:
    needs = "|".join(f"{one}_{model}+{permission}" for one in ("view", "change"))
    return AdminAction(model=model, name=name, needs=needs, action=action)


ADMIN_ACTIONS = [
    _chosen("apikey", "revoke_chosen", "change_apikey", Action.KEY_REVOKED),
]
