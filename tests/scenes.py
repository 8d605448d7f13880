"""The rows behind `tests/pages.py`: a busy webhook, a failing one, and their related rows."""

import datetime as dt
from typing import Any

from django.contrib.auth.models import Group, User
from django.utils import timezone

from tests.factories import make_credential, make_delivery, make_webhook
from tests.pages import Scene
from webhooks import audit, events
from webhooks.delivery.histogram import step_of
from webhooks.delivery_log import charts
from webhooks.models import (
    Action,
    AlertChannel,
    ApiKey,
    Attempt,
    AuditEntry,
    Credential,
    Delivery,
    HourlyCount,
    OAuthExchange,
    OAuthToken,
    Resend,
    ResendScope,
    Webhook,
    WebhookState,
    WebhookVersion,
)

_ATTEMPT: dict[str, Any] = {
    "request_line": "POST http://127.0.0.1:9/hook HTTP/1.1",
    "request_headers": "Content-Type: application/json\nAuthorization: ••••",
    "response_headers": "HTTP/1.1 503 Service Unavailable\nContent-Type: application/json",
    "response_body": b'{"error": {"code": 7, "text": "busy"}}',
    "response_size": 38,
    "remote_address": "127.0.0.1",
    "dns_ms": 1.0,
    "connect_ms": 2.0,
    "first_byte_ms": 20.0,
    "total_ms": 31.0,
    "status_code": 503,
    "outcome": "server_error",
    "error": "The receiver failed with 503.",
}


def scene(webhook: int | None = None) -> Scene:
    """Make the rows; the busy webhook may be an existing one."""
    user, _ = User.objects.get_or_create(username="somebody", is_staff=True)
    shared = make_credential(name="Shared login", basic_login="login", basic_password="a password")
    busy = (
        Webhook.objects.get(pk=webhook)
        if webhook
        else make_webhook(created_by=user, alert_recipients=["ops@example.com"])
    )
    make_webhook(name="By connection", credential=shared)
    oauth = _oauth(user)
    failed = _failed(busy)
    _count(busy)
    test = events.send_test(busy)
    _held(oauth)
    make_delivery(busy)
    key, _plain = ApiKey.objects.issue("Telephony", created_by=user)
    audit.record(Action.CHANGED, busy, user=user, fields=["url"])
    audit.record(Action.CREATED, shared, user=user)
    return Scene(
        webhook=busy.pk,
        oauth=oauth.pk,
        connection=shared.pk,
        delivery=failed.pk,
        test=test.pk,
        event=failed.event_id,
        resend=_resend(busy, user).pk,
        exchange=_exchange(oauth).pk,
        entry=AuditEntry.objects.latest("pk").pk,
        version=WebhookVersion.objects.latest("pk").pk,
        channel=AlertChannel.objects.create(
            kind="slack", name="Ops", secret="https://a.example/", recipient="https://a.example"
        ).pk,
        key=key.pk,
        user=user.pk,
        group=Group.objects.get_or_create(name="Telephony")[0].pk,
    )


def more_of(found: Scene) -> None:
    """Give each object of a scene more rows, and the site more objects."""
    scene(found.webhook)
    user = User.objects.get(pk=found.user)
    oauth = Webhook.objects.get(pk=found.oauth)
    shared = Credential.objects.get(pk=found.connection)
    make_webhook(name="By connection too", credential=shared)
    for one in (shared, oauth):
        audit.record(Action.CHANGED, one, user=user, fields=["name"])
    _held(oauth)
    _exchange(oauth)
    failed = Delivery.objects.get(pk=found.delivery)
    number = failed.attempts.count() + 1
    Attempt.objects.create(delivery=failed, number=number, started_at=timezone.now(), **_ATTEMPT)


def _oauth(user: User) -> Webhook:
    oauth = make_webhook(
        name="Sheets export", authorization_type="oauth2", client_id="client",
        client_secret="a secret", auth_url="https://id.example.com/auth",
        token_url="https://id.example.com/token",
    )  # fmt: skip
    OAuthToken.objects.create(
        credential=oauth.credential, state="needs_reauthorization", granted_by=user,
        last_error="The grant was revoked.",
    )  # fmt: skip
    return oauth


def _failed(webhook: Webhook) -> Delivery:
    now = timezone.now()
    delivery = make_delivery(webhook)
    for number in (1, 2):
        Attempt.objects.create(delivery=delivery, number=number, started_at=now, **_ATTEMPT)
    Delivery.objects.filter(pk=delivery.pk).update(
        status="failed", outcome="server_error", status_code=503, attempt_count=2,
        failure_count=2, next_attempt_at=None, finished_at=now,
    )  # fmt: skip
    WebhookState.objects.update_or_create(
        webhook=webhook,
        defaults={
            "last_attempt_at": now, "last_status_code": 503, "last_success_at": now,
            "failing_since_at": now - dt.timedelta(hours=1),
            "last_error": "The receiver failed with 503.",
        },
    )  # fmt: skip
    delivery.refresh_from_db()
    return delivery


def _held(oauth: Webhook) -> None:
    row = Delivery.objects.filter(pk=make_delivery(oauth).pk)
    row.update(status="held", hold_reason="reauthorization", next_attempt_at=None)


def _count(webhook: Webhook) -> None:
    hour = charts.hour_of(timezone.now())
    for hours, outcome, number in ((0, "succeeded", 40), (1, "server_error", 3), (2, "timeout", 2)):
        HourlyCount.objects.update_or_create(
            webhook=webhook, hour=hour - hours * dt.timedelta(hours=1), outcome=outcome,
            duration_step=step_of(50.0 * (1 + hours)), defaults={"count": number},
        )  # fmt: skip


def _exchange(oauth: Webhook) -> OAuthExchange:
    return OAuthExchange.objects.create(
        credential=oauth.credential, kind="refresh", started_at=timezone.now(), duration_ms=120.0,
        url=oauth.credential.token_url, status_code=400, result="needs_reauthorization",
        message="The grant was revoked.", request="POST /token", response="HTTP/1.1 400",
    )  # fmt: skip


def _resend(webhook: Webhook, user: User) -> Resend:
    now = timezone.now()
    return Resend.objects.create(
        webhook=webhook, scope=ResendScope.FAILED, since_at=now - dt.timedelta(days=1),
        until_at=now, total=40, done=12, created_by=user,
    )  # fmt: skip
