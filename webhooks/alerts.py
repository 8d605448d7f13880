"""Tells people what is wrong with their webhooks: by e-mail and by operational events.

Looks at the rows that the engine and the token vault write, keeps an `Incident` for each problem,
and sends one message when it begins, a reminder a day, and one when it is over. Safe with any
number of beats: a conditional UPDATE decides who sends. Knows neither requests nor screens.
"""

import logging
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

from django.conf import settings
from django.core.mail import EmailMessage
from django.db import transaction
from django.db.models import Q
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from webhooks.models import (
    AuthorizationType,
    Delivery,
    Incident,
    IncidentKind,
    PauseReason,
    Status,
    TokenState,
    Webhook,
)
from webhooks.publishing import NewEvent, accept

logger = logging.getLogger(__name__)

_REMIND_AFTER = timedelta(days=1)
# A refresh token that is known to end is announced so long before.
_TOKEN_ENDS_WITHIN = timedelta(days=7)
_EVENT_TYPES = {
    IncidentKind.REAUTHORIZATION: "webhook.reauthorization_required",
    IncidentKind.MISCONFIGURED: "webhook.failing",
    IncidentKind.FAILING: "webhook.failing",
    IncidentKind.PAUSED: "webhook.disabled",
}
_RECOVERED = "webhook.recovered"
_BLOCKED = (TokenState.NEEDS_REAUTHORIZATION, TokenState.MISCONFIGURED)


class Problem(NamedTuple):
    webhook_id: int
    kind: IncidentKind
    message: str


def look(now: datetime | None = None) -> int:
    """Open, remind of and close incidents; return how many messages went out."""
    now = now or timezone.now()
    problems = {(found.webhook_id, found.kind): found for found in _problems(now)}
    open_now = {
        (incident.webhook_id, IncidentKind(incident.kind)): incident
        for incident in Incident.objects.filter(closed_at=None)
    }
    Incident.objects.bulk_create(
        [
            Incident(
                webhook_id=found.webhook_id,
                kind=found.kind,
                message=found.message[:1000],
                opened_at=now,
            )
            for key, found in problems.items()
            if key not in open_now
        ],
        ignore_conflicts=True,
    )
    sent = sum(_close(incident, now) for key, incident in open_now.items() if key not in problems)
    untold = Q(told_at=None) | Q(told_at__lte=now - _REMIND_AFTER)
    waiting = Incident.objects.filter(untold, closed_at=None).select_related("webhook")
    return sent + sum(_tell(incident, now) for incident in waiting)


def send_test_mail(webhook: Webhook) -> bool:
    """Mail the webhook's own recipients, muted or not; return whether the mail server took it.

    Uses `alert_recipients` as it is on the instance, saved or not.
    """
    if not webhook.alert_recipients:
        return False
    subject = _("Test: alerts of “%(name)s” arrive") % {"name": webhook.name}
    text = _("This is a test. When the webhook “%(name)s” has a problem, you are told here.")
    body = f"{text % {'name': webhook.name}}\n\n{_link(webhook)}\n"
    return _post(webhook, webhook.alert_recipients, subject, body)


def _problems(now: datetime) -> Iterator[Problem]:
    present = Webhook.objects.present().select_related("token", "state")
    owners = Webhook.objects.owners().select_related("token")
    oauth = owners.filter(authorization_type=AuthorizationType.OAUTH2)
    lost = oauth.filter(token__state=TokenState.NEEDS_REAUTHORIZATION)
    for webhook in lost:
        yield Problem(webhook.pk, IncidentKind.REAUTHORIZATION, webhook.token.last_error)
    for webhook in oauth.filter(token__state=TokenState.MISCONFIGURED):
        yield Problem(webhook.pk, IncidentKind.MISCONFIGURED, webhook.token.last_error)
    ending = oauth.filter(token__refresh_token_expires_at__lte=now + _TOKEN_ENDS_WITHIN)
    for webhook in ending.exclude(token__state__in=(TokenState.NONE, *_BLOCKED)):
        ends_at = webhook.token.refresh_token_expires_at
        message = _("The refresh token ends on %(date)s.") % {"date": f"{ends_at:%Y-%m-%d}"}
        yield Problem(webhook.pk, IncidentKind.TOKEN_ENDING, message)
    for webhook in present.filter(pause_reason__in=(PauseReason.GONE, PauseReason.FAILING)):
        yield Problem(webhook.pk, IncidentKind.PAUSED, str(webhook.get_pause_reason_display()))
    since = now - timedelta(minutes=settings.WEBHOOKS_ALERT_AFTER_MINUTES)
    for webhook in present.filter(is_active=True, state__failing_since_at__lte=since):
        yield Problem(webhook.pk, IncidentKind.FAILING, webhook.state.last_error)


def _tell(incident: Incident, now: datetime) -> int:
    """Send the first message or a reminder; return 1 if this process did."""
    before = incident.told_at
    claimed = Incident.objects.filter(pk=incident.pk, told_at=before, closed_at=None)
    if not claimed.update(told_at=now):
        return 0
    subject = _("“%(name)s” %(what)s") % {
        "name": incident.webhook.name,
        "what": incident.get_kind_display(),
    }
    if not _mail(incident.webhook, subject, _text(incident)):
        Incident.objects.filter(pk=incident.pk, told_at=now).update(told_at=before)
        return 0
    if before is None and (event_type := _EVENT_TYPES.get(IncidentKind(incident.kind))):
        _publish(event_type, incident)
    return 1


def _close(incident: Incident, now: datetime) -> int:
    if not Incident.objects.filter(pk=incident.pk, closed_at=None).update(closed_at=now):
        return 0
    webhook = Webhook.objects.get(pk=incident.webhook_id)
    if webhook.deleted_at or incident.told_at is None:
        return 0
    if incident.kind in _EVENT_TYPES:
        _publish(_RECOVERED, incident)
    subject = _("“%(name)s” works again") % {"name": webhook.name}
    return int(_mail(webhook, subject, f"{subject}.\n\n{_link(webhook)}\n"))


def _publish(event_type: str, incident: Incident) -> None:
    webhook = incident.webhook
    with transaction.atomic():
        accept(
            [
                NewEvent(
                    event_type,
                    {
                        "webhook_id": webhook.uid,
                        "webhook_name": webhook.name,
                        "webhook_url": webhook.url,
                        "message": incident.message,
                    },
                    source="webhooks",
                )
            ]
        )


def _text(incident: Incident) -> str:
    webhook = incident.webhook
    users = Q(webhook=webhook) | Q(webhook__connection=webhook)
    held = Delivery.objects.filter(users, status=Status.HELD).count()
    lines = [
        _("The webhook “%(name)s” %(what)s.")
        % {"name": webhook.name, "what": incident.get_kind_display()},
        incident.message,
    ]
    if held:
        sentence = ngettext(
            "%(count)d delivery waits and goes out once it works again.",
            "%(count)d deliveries wait and go out once it works again.",
            held,
        )
        lines.append(sentence % {"count": held})
    lines.append(_link(webhook))
    return "\n\n".join(line for line in lines if line) + "\n"


def _link(webhook: Webhook) -> str:
    """Return the address that leads, after login, to the button that helps."""
    is_oauth = webhook.authorization_type == AuthorizationType.OAUTH2
    name = "connection_edit" if webhook.is_connection else "edit" if is_oauth else "detail"
    place = "#token" if is_oauth else ""
    return f"{settings.PUBLIC_URL}{reverse(f'webhooks:{name}', args=[webhook.pk])}{place}"


def _mail(webhook: Webhook, subject: str, text: str) -> bool:
    """Send to the webhook's people and to everybody's; True also when there is nobody to tell."""
    concerned = [webhook, *webhook.users.present()] if webhook.is_connection else [webhook]
    people = [who for one in concerned if not one.alerts_are_muted for who in one.alert_recipients]
    recipients = sorted({*people, *settings.WEBHOOKS_ALERT_RECIPIENTS})
    return _post(webhook, recipients, subject, text) if recipients else True


def _post(webhook: Webhook, recipients: list[str], subject: str, text: str) -> bool:
    """Give one message to the mail server; return whether it took it."""
    # A line break in a name would end the header.
    message = EmailMessage(" ".join(subject.split()), text, to=recipients)
    try:
        message.send()
    except OSError as error:
        logger.warning("alert_not_sent webhook=%d error=%s", webhook.pk, type(error).__name__)
        return False
    return True
