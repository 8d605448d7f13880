"""Every URL of the site, walked from the URL map, and one of each row to request."""

import datetime as dt
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import Group, User
from django.contrib.contenttypes.models import ContentType
from django.urls import URLPattern, get_resolver
from django.utils import timezone

from tests.factories import make_delivery, make_webhook
from tests.ui.connections.test_views import OAUTH, make_connection, token_for
from webhooks import audit, events
from webhooks.models import (
    Action,
    AlertChannel,
    ApiKey,
    Attempt,
    AuditEntry,
    Credential,
    Delivery,
    Event,
    ExchangeKind,
    OAuthExchange,
    PauseReason,
    Resend,
    ResendScope,
    Webhook,
)

# Part of each payload, request and response of the world.
CANARY = "canary-of-a-payload"
# The paused webhook's filter rejects the event, and a page explains why.
CONDITION = {"variable": "caller_name", "operator": "equals", "value": "somebody else"}


def routes() -> list[str]:
    """Return every route of the URL map, as it is written there."""
    return list(_walk(get_resolver().url_patterns))


def _walk(patterns: list[Any], prefix: str = "") -> Iterator[str]:
    for one in patterns:
        route = prefix + str(one.pattern)
        if isinstance(one, URLPattern):
            # The names of the apps come in any order.
            yield re.sub(r"\^\(\?P<app_label>[a-z|]+\)/\$$", "<app_label>/", route)
        else:
            yield from _walk(one.url_patterns, route)


@dataclass
class UrlWorld:
    """One row of everything that a URL names."""

    webhook: Webhook
    paused: Webhook
    connection: Credential
    deleted: Webhook
    delivery: Delivery
    test: Delivery
    # Belongs to the deleted webhook.
    stray: Delivery
    attempt: Attempt
    resend: Resend
    channel: AlertChannel
    key: ApiKey
    exchange: OAuthExchange
    entry: AuditEntry
    group: Group
    person: User


def make_world() -> UrlWorld:
    webhook = make_webhook(**OAUTH)
    token_for(webhook.credential)
    delivery = make_delivery(webhook)
    paused = make_webhook(name="Paused", event_types=["call.*"], filter=CONDITION)
    events.pause(paused, PauseReason.PERSON)
    deleted = make_webhook(name="Deleted", event_types=["form.*"])
    stray = events.send_test(deleted)
    Webhook.objects.filter(pk=deleted.pk).update(deleted_at=timezone.now())
    Credential.objects.filter(pk=deleted.credential_id).update(deleted_at=timezone.now())
    audit.record(Action.CREATED, webhook, user=None)
    test = events.send_test(webhook)
    document = json.loads(delivery.event.payload) | {"caller_name": CANARY}
    Event.objects.update(payload=json.dumps(document).encode())
    yesterday = timezone.now() - dt.timedelta(days=1)
    Webhook.objects.filter(pk=paused.pk).update(created_at=yesterday)
    attempts = [make_attempt(one, number) for one in (test, delivery) for number in (1, 2)]
    return UrlWorld(
        webhook=webhook,
        paused=paused,
        connection=make_connection(callback_url="http://127.0.0.1:9/callback"),
        deleted=deleted,
        delivery=delivery,
        stray=stray,
        test=test,
        attempt=attempts[-1],
        channel=AlertChannel.objects.create(
            kind="email", name="ops@example.com", recipient="ops@example.com"
        ),
        resend=Resend.objects.create(webhook=webhook, scope=ResendScope.ALL),
        key=ApiKey.objects.issue("PBX")[0],
        exchange=OAuthExchange.objects.create(
            credential=webhook.credential,
            kind=ExchangeKind.TOKEN,
            started_at=timezone.now(),
            result="ok",
        ),
        entry=AuditEntry.objects.latest("pk"),
        group=Group.objects.create(name="Group"),
        person=User.objects.create_user("person"),
    )


def make_attempt(delivery: Delivery, number: int) -> Attempt:
    return Attempt.objects.create(
        delivery=delivery,
        number=number,
        started_at=timezone.now(),
        outcome="server_error",
        status_code=500,
        request_line=f"GET http://127.0.0.1:9/hook?caller_name={CANARY}-{number} HTTP/1.1",
        request_headers="webhook-id: x",
        request_body=f'{{"caller_name": "{CANARY}-{number}"}}'.encode(),
        # As in a redirect.
        response_headers=f"HTTP/1.1 500 Oops\nLocation: /?caller_name={CANARY}-{number}",
        response_body=f"You sent {CANARY}-{number}".encode(),
    )


def text_of(answer: Any) -> str:
    content = b"".join(answer.streaming_content) if answer.streaming else answer.content
    return str(content.decode("utf-8", "replace"))


def address(route: str, world: UrlWorld, *, pk: str = "", **instead: object) -> str:
    """Return the URL of a route with the world's rows in it.

    `pk` is a number, or names another row of the world than usual; `instead` gives values for parts
    by name.
    """
    values: dict[str, object] = {
        "<row:pk>": _owner(route, world, pk),
        "<str:delivery_id>": world.test.pk if "/tests/" in route else world.delivery.pk,
        "<str:event_id>": world.delivery.event_id,
        "<row:attempt_id>": world.attempt.pk,
        "<row:entry>": world.entry.pk,
        "<str:kind>": "email",
        "<str:event_type>": "call.incoming.after",
        "<str:part>": "request",
        "<slug:uid>.<slug:form>": "crd_of_nobody.json",
        "^[/]*api(?![^/])": "api/v1/events/",
        "<path:content_type_id>": ContentType.objects.get_for_model(Webhook).pk,
        "<path:object_id>": _admin_row(route, world),
        "<id>": world.person.pk,
        "<app_label>": "webhooks",
        "(?P<url>.*)$": "nothing/here/",
    }
    places = {f"<{kind}:{name}>": name for name in instead for kind in ("row", "str", "path")}
    values |= {place: instead[name] for place, name in places.items()}
    for place, value in values.items():
        route = route.replace(place, str(value))
    left = re.findall(r"[<>^$]", route)
    assert not left, f"Say in tests/security/url_map.py what stands for the rest of {route}."
    return f"/{route}"


def _owner(route: str, world: UrlWorld, pk: str) -> Any:
    if pk:
        return pk if pk.isdecimal() else getattr(world, pk).pk
    if "alerts/<row:pk>" in route:
        return world.channel.pk
    if "trash/<row:pk>" in route:
        return world.deleted.pk
    if "connections/<row:pk>" in route:
        return world.connection.pk
    if "credentials/<row:pk>" in route:
        return world.webhook.credential_id
    if "resends/<row:pk>" in route:
        return world.resend.pk
    return world.key.pk if "apikey" in route else world.webhook.pk


def _admin_row(route: str, world: UrlWorld) -> Any:
    rows = {
        "apikey": world.key,
        "auditentry": world.entry,
        "delivery": world.delivery,
        "event": world.delivery.event,
        "group": world.group,
        "oauthexchange": world.exchange,
        "user": world.person,
    }
    found = [row for name, row in rows.items() if f"/{name}/" in route]
    return (found[0] if found else world.webhook).pk
