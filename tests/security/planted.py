"""A site in which every text that comes from outside is an injection string.

Rows are written without the forms, so that the pages alone have to withstand them.
"""

import itertools
import json
import re
from dataclasses import dataclass, field
from typing import Any

from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.utils import timezone

from tests.factories import make_credential, make_webhook
from tests.security.injections import CORPUS, STORABLE, chunks, packed
from webhooks import audit, events
from webhooks.models import (
    Action,
    AlertChannel,
    ApiKey,
    Attempt,
    Credential,
    Delivery,
    Event,
    Incident,
    IncidentKind,
    OAuthExchange,
    OAuthToken,
    Resend,
    ResendScope,
    SavedView,
    Webhook,
    WebhookState,
)

AFTER = "call.incoming.after"
# Variables whose values are texts from the caller, the website or the provider.
VARIABLES = (
    *("call_id", "caller", "userfield", "dst", "number_alias", "connected_with", "client_number"),
    *("disposition", "employee_name", "department", "scheme_name", "pool_name", "utm_source"),
    *("utm_medium", "utm_campaign", "utm_content", "utm_term", "client_id", "landing", "referrer"),
    *("remote_ip", "recording_url", "call_card_url"),
)


@dataclass
class PlantedSite:
    """Rows, by the pages that show them."""

    webhooks: list[Webhook] = field(default_factory=list)
    # Webhooks that reach a receiver; the settings of the others are refused.
    sending: list[Webhook] = field(default_factory=list)
    named: list[Webhook] = field(default_factory=list)
    connections: list[Webhook] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    resend: Resend | None = None
    channels: list[AlertChannel] = field(default_factory=list)


def make_hostile_rows(person: User) -> PlantedSite:
    """Write the rows; none of them is sent yet."""
    site = PlantedSite()
    person.username = packed(150)[1]
    person.first_name = packed(150)[2]
    person.save()
    site.connections = [_connection(texts, person) for texts in chunks(120)]
    site.webhooks = [_full(number, texts, person) for number, texts in enumerate(chunks(90))]
    site.sending = [_sending(texts) for texts in chunks(40)]
    site.named = [
        make_webhook(name=name, url=name, event_types=[text], created_by=person)
        for name, text in zip(packed(100), itertools.cycle(STORABLE), strict=False)
    ]
    site.events = [_event(texts) for texts in chunks(len(VARIABLES), CORPUS)]
    site.deliveries = list(Delivery.objects.filter(event__in=site.events).order_by("-id")[:8])
    for name in packed(100):
        ApiKey.objects.issue(name, created_by=person)
    for name, text in zip(packed(100), itertools.cycle(STORABLE), strict=False):
        channel = AlertChannel(kind="slack", name=name, secret="https://a.example/")
        channel.recipient, channel.last_error = text[:254], text[:500]
        channel.save()
        site.channels.append(channel)
    for number, text in enumerate(STORABLE[:20]):
        name = f"{number}{text}"[:40]
        SavedView.objects.create(user=person, name=name, query="status=failed")
    _trail(person, site)
    _health(site)
    site.resend = Resend.objects.create(
        webhook=site.webhooks[0], scope=ResendScope.values[0], created_by=person, rate=1
    )
    return site


def hostile_headers(texts: list[str]) -> str:
    """Return stored custom headers whose names and values are these strings."""
    rows = [{"name": text, "value": text, "secret": False} for text in texts]
    return json.dumps(rows)


def answers() -> dict[str, bytes]:
    """Return the receivers' responses by path: the corpus in body, headers and reason phrase."""
    found = {}
    for number, texts in enumerate(chunks(40, CORPUS)):
        # Strings that break the response itself are in tests/security/test_injection_answers.py.
        lines = [re.sub("[\r\n\0]", "", text) for text in texts]
        body = json.dumps(texts, ensure_ascii=False).encode() if number % 2 else _raw(texts)
        head = [f"HTTP/1.1 {200 + 300 * (number % 2)} {lines[0]}"]
        head += [f"X-{index}: {line}" for index, line in enumerate(lines)]
        head += [f"Content-Length: {len(body)}", "Content-Type: text/html"]
        found[f"/{number}"] = "\r\n".join(head).encode() + b"\r\n\r\n" + body
    return found


def _raw(texts: list[str]) -> bytes:
    return "\n".join(texts).encode()


def _connection(texts: list[str], person: User) -> Credential:
    shared = make_credential(
        name=packed(100, texts)[0],
        allowed_hosts=texts[:40],
        **_oauth(texts),
        created_by=person,
    )
    _token(shared, texts)
    return shared


def _oauth(texts: list[str]) -> dict[str, Any]:
    every = itertools.cycle(packed(1000, texts))
    short = itertools.cycle(packed(100, texts))
    return {
        "authorization_type": "oauth2",
        "token_name": next(short),
        "auth_url": next(every),
        "token_url": next(every),
        "client_id": next(every),
        "client_secret": "s3cret-of-the-client",
        "scope": next(every),
        "issuer": next(every),
        "refresh_url": next(every),
        "revocation_url": next(every),
        "audience": next(every),
        "resource": next(every),
        "authorization_parameters": {text: text for text in texts[:20]},
        "token_parameters": {text: text for text in texts[20:40]},
        "refresh_parameters": {text: text for text in texts[:20]},
        "reauthorization_words": texts[:10],
    }


def _token(credential: Credential, texts: list[str]) -> None:
    every = itertools.cycle(packed(1000, texts))
    OAuthToken.objects.create(
        credential=credential,
        state="needs_reauthorization",
        granted_scope=next(every),
        last_error=next(every),
        warning=next(every),
        token_type=packed(32, texts)[0],
    )
    for pack in packed(1000, texts):
        OAuthExchange.objects.create(
            credential=credential,
            kind="token",
            started_at=timezone.now(),
            url=pack,
            status_code=400,
            result="misconfigured",
            request=pack,
            response=pack,
            message=pack,
        )


def _full(number: int, texts: list[str], person: User) -> Webhook:
    """Save a webhook whose every setting is hostile; its receiver's URL is set later."""
    rows = [{"variable": text, "operator": "not_equals", "value": text} for text in texts[:12]]
    rows.append({"variable": "caller", "operator": "not_one_of", "value": texts})
    webhook = make_webhook(
        name=packed(100, texts)[0],
        event_types=[AFTER],
        filter={"all": rows},
        parameters=[{"name": text, "value": text} for text in texts] if number % 2 else [],
        body_template="" if number % 2 else json.dumps(dict.fromkeys(texts, "{{ call_id }}")),
        headers_json=hostile_headers(texts),
        alert_recipients=texts[:20],
        time_zone=packed(64, texts)[0],
        # It cannot be sent, so the engine must not wait for it.
        is_active=False,
        pause_reason="person",
        created_by=person,
        **(_oauth(texts) if number % 3 == 0 else _basic(texts)),
    )
    if number % 3 == 0:
        _token(webhook.credential, texts)
    return webhook


def _sending(texts: list[str]) -> Webhook:
    """Save a webhook that can send: hostile values wherever any text is allowed."""
    return make_webhook(
        name=packed(100, texts)[1],
        event_types=[AFTER],
        parameters=[{"name": "everything", "variable": "fields"}]
        + [{"name": f"static.n{index}", "value": text} for index, text in enumerate(texts)],
        headers_json=json.dumps(
            [
                {"name": f"X-{index}", "value": text, "secret": False}
                for index, text in enumerate(texts)
                if text.isascii() and text.isprintable()
            ]
        ),
    )


def _basic(texts: list[str]) -> dict[str, Any]:
    return {
        "authorization_type": "basic",
        "basic_login": packed(255, texts)[0],
        "basic_password": "p4ssword-of-the-login",
    }


def _event(texts: list[str]) -> Event:
    values: dict[str, Any] = dict(zip(VARIABLES, texts, strict=False))
    values["call_id"] = texts[0].replace("\0", "")
    values["fields"] = {text: [text, {text: text}] for text in texts}
    event = Event.objects.get(pk=events.publish(AFTER, values).event_id)
    Event.objects.filter(pk=event.pk).update(source=packed(100, texts)[0].replace("\0", ""))
    return event


def _trail(person: User, site: PlantedSite) -> None:
    types = itertools.cycle([Webhook, Event, Delivery, ApiKey, OAuthExchange])
    for note, webhook in zip(packed(300), itertools.cycle(site.webhooks), strict=False):
        audit.record(Action.CHANGED, webhook, user=person, fields=[note], note=note)
        LogEntry.objects.create(
            user=person,
            content_type=ContentType.objects.get_for_model(next(types)),
            object_id=str(webhook.pk),
            object_repr=note[:200],
            action_flag=CHANGE,
            change_message=note,
        )


def _health(site: PlantedSite) -> None:
    for webhook, text in zip(site.webhooks, itertools.cycle(packed(500)), strict=False):
        WebhookState.objects.update_or_create(
            webhook=webhook,
            defaults={"last_error": text, "failing_since_at": timezone.now()},
        )
        Incident.objects.create(
            webhook=webhook,
            kind=IncidentKind.values[0],
            message=text,
            opened_at=timezone.now(),
        )


def resume(site: PlantedSite) -> None:
    """Make half of the hostile webhooks active again."""
    ids = [webhook.pk for webhook in site.webhooks[::2]]
    Webhook.objects.filter(pk__in=ids).update(is_active=True, pause_reason="")


def store_attempts(site: PlantedSite) -> None:
    """Store attempts that the engine stores only for receivers it can reach."""
    for delivery, text in zip(site.deliveries, packed(500), strict=False):
        Attempt.objects.create(
            delivery=delivery,
            number=7,
            started_at=timezone.now(),
            request_line=f"POST http://{text}",
            request_headers=text,
            request_body=text.encode(),
            response_headers=f"HTTP/1.1 200 {text}\n{text}",
            response_body=text.encode(),
            outcome="protocol",
            error=text,
            remote_address=text[:64],
        )
