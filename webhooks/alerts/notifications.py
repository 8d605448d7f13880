"""Tells people what is wrong with their webhooks: by e-mail and by operational events.

Keeps an `Incident` for each problem that `problems` finds, and sends one message when it begins, a
reminder a day, and one when it is over. Safe with any number of beats: a conditional UPDATE decides
who sends. Knows neither requests nor screens.
"""

import logging
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.core.mail import EmailMessage
from django.db import transaction
from django.db.models import Q
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from webhooks.alerts import problems
from webhooks.delivery.fan_out import NewEvent, accept
from webhooks.delivery_log import decoded_body
from webhooks.models import (
    AuthorizationType,
    Delivery,
    Incident,
    IncidentKind,
    Status,
    Webhook,
    messages,
)

logger = logging.getLogger(__name__)

_REMIND_AFTER = timedelta(days=1)
# Counting stops here: a webhook may hold millions, and a mail needs no more.
_MAX_COUNTED = 1000
# The size of the column.
_MAX_STORED = 1000
_EVENT_TYPES = {
    IncidentKind.REAUTHORIZATION: "webhook.reauthorization_required",
    IncidentKind.MISCONFIGURED: "webhook.failing",
    IncidentKind.FAILING: "webhook.failing",
    IncidentKind.PAUSED: "webhook.disabled",
}
_RECOVERED = "webhook.recovered"
# What the catalogue says about failures, in the events that say it.
_FACTS = {
    "webhook.failing": ("failing_since_at", "last_status_code"),
    "webhook.disabled": ("failing_since_at", "last_status_code"),
    _RECOVERED: ("last_status_code",),
}


def look(now: datetime | None = None) -> int:
    """Open, remind of and close incidents; return how many messages went out."""
    now = now or timezone.now()
    open_now = {
        (incident.webhook_id, IncidentKind(incident.kind)): incident
        for incident in Incident.objects.filter(closed_at=None)
    }
    found = problems.find(now, known=open_now)
    Incident.objects.bulk_create(
        [
            Incident(
                webhook_id=problem.webhook_id,
                kind=problem.kind,
                message=_kept(problem.message),
                opened_at=min(problem.began_at, now),
            )
            for key, problem in found.items()
            if key not in open_now
        ],
        ignore_conflicts=True,
    )
    ill = {webhook_id for webhook_id, _kind in found}
    sent = sum(
        _close(incident, now, is_well=incident.webhook_id not in ill)
        for key, incident in open_now.items()
        if key not in found
    )
    untold = Q(told_at=None) | Q(told_at__lte=now - _REMIND_AFTER)
    waiting = Incident.objects.filter(untold, closed_at=None).select_related("webhook__state")
    for incident in waiting:
        problem = found.get((incident.webhook_id, IncidentKind(incident.kind)))
        sent += _tell(incident, now, message=problem.message if problem else incident.message)
    return sent


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


def _tell(incident: Incident, now: datetime, *, message: str) -> int:
    """Send the first message or a reminder; return 1 if this process did."""
    before = incident.told_at
    webhook = incident.webhook
    recipients = _recipients(webhook, now)
    claimed = Incident.objects.filter(pk=incident.pk, told_at=before, closed_at=None)
    # A reminder says how it is by now.
    told_at = now if recipients else _when_unmuted(webhook, now)
    incident.message = _kept(message)
    if not claimed.update(told_at=told_at, message=incident.message):
        return 0
    if not _post(
        webhook, recipients, _subject(incident, is_reminder=before is not None), _text(incident)
    ):
        Incident.objects.filter(pk=incident.pk, told_at=told_at).update(told_at=before)
        return 0
    if before is None and (event_type := _EVENT_TYPES.get(IncidentKind(incident.kind))):
        _publish(event_type, webhook, problems.sentence(incident.message))
    return 1


def _kept(message: str) -> str:
    """Return what the row of an incident has room for."""
    return messages.cut(message, _MAX_STORED)


def _when_unmuted(webhook: Webhook, now: datetime) -> datetime:
    """Return a time that lets the next message go out as soon as a mute for a while ends."""
    until = webhook.alerts_muted_until
    if webhook.alert_recipients and webhook.mutes_alerts(now) and until:
        return until - _REMIND_AFTER
    return now


def _close(incident: Incident, now: datetime, *, is_well: bool) -> int:
    """End an incident; tell so unless the webhook only went from one trouble into another."""
    if not Incident.objects.filter(pk=incident.pk, closed_at=None).update(closed_at=now):
        return 0
    webhook = Webhook.objects.select_related("state").get(pk=incident.webhook_id)
    # Who paused a failing webhook, or removed it, did not repair it.
    is_gone = webhook.deleted_at or (
        incident.kind == IncidentKind.FAILING and not webhook.is_active
    )
    if is_gone or not is_well or incident.told_at is None:
        return 0
    subject = _all_clear(incident, webhook)
    if incident.kind in _EVENT_TYPES:
        _publish(_RECOVERED, webhook, f"{subject}.")
    return int(
        _post(webhook, _recipients(webhook, now), subject, f"{subject}.\n\n{_link(webhook)}\n")
    )


def _publish(event_type: str, webhook: Webhook, message: str) -> None:
    state = getattr(webhook, "state", None)
    facts: dict[str, Any] = {
        name: getattr(state, name) for name in _FACTS.get(event_type, ()) if state is not None
    }
    payload = {
        "webhook_id": webhook.uid,
        "webhook_name": webhook.name,
        "webhook_url": webhook.url,
        "message": message,
        **{name: value for name, value in facts.items() if value is not None},
    }
    if since := payload.get("failing_since_at"):
        payload["failing_since_at"] = since.isoformat()
    with transaction.atomic():
        accept([NewEvent(event_type, payload, source="webhooks")])


def _subject(incident: Incident, *, is_reminder: bool) -> str:
    subjects = {
        IncidentKind.REAUTHORIZATION: (
            _("“%(name)s” needs re-authorization"),
            _("Still so: “%(name)s” needs re-authorization"),
        ),
        IncidentKind.MISCONFIGURED: (
            _("“%(name)s” has a misconfigured OAuth client"),
            _("Still so: “%(name)s” has a misconfigured OAuth client"),
        ),
        IncidentKind.FAILING: (_("“%(name)s” is failing"), _("Still so: “%(name)s” is failing")),
        IncidentKind.PAUSED: (_("“%(name)s” was paused"), _("Still so: “%(name)s” is paused")),
        IncidentKind.TOKEN_ENDING: (
            _("“%(name)s” needs re-authorization soon"),
            _("Still so: “%(name)s” needs re-authorization soon"),
        ),
    }
    first, again = subjects[IncidentKind(incident.kind)]
    return (again if is_reminder else first) % {"name": incident.webhook.name}


def _all_clear(incident: Incident, webhook: Webhook) -> str:
    text = {
        IncidentKind.PAUSED: _("“%(name)s” is active again"),
        IncidentKind.TOKEN_ENDING: _("“%(name)s” has a new token"),
    }.get(IncidentKind(incident.kind), _("“%(name)s” works again"))
    return text % {"name": webhook.name}


def _text(incident: Incident) -> str:
    """Write a mail: what happened, what waits, what to do, and where."""
    webhook = incident.webhook
    advice = {
        IncidentKind.REAUTHORIZATION: _("Open the webhook and press Get new access token."),
        IncidentKind.MISCONFIGURED: _(
            "Open the webhook and correct its OAuth settings. Its token panel says what the "
            "provider answered."
        ),
        IncidentKind.FAILING: _("Open the webhook to see what its receiver answers."),
        IncidentKind.PAUSED: _("Repair the receiver, send a test, then resume the webhook."),
        IncidentKind.TOKEN_ENDING: _(
            "Press Get new access token before that, and nothing is held."
        ),
    }
    subject = _subject(incident, is_reminder=False)
    lines = [
        f"{subject}.",
        problems.sentence(incident.message),
        _waiting(webhook),
        advice[IncidentKind(incident.kind)],
    ]
    lines.append(_link(webhook))
    return "\n\n".join(line for line in lines if line) + "\n"


def _waiting(webhook: Webhook) -> str:
    users = Q(webhook=webhook) | Q(webhook__connection=webhook)
    rows = Delivery.objects.filter(users, status=Status.HELD).order_by()
    held = len(rows.values_list("pk")[: _MAX_COUNTED + 1])
    if not held:
        return ""
    if held > _MAX_COUNTED:
        text = _("More than %(count)d deliveries wait and go out once it works again.")
        return text % {"count": _MAX_COUNTED}
    text = ngettext(
        "%(count)d delivery waits and goes out once it works again.",
        "%(count)d deliveries wait and go out once it works again.",
        held,
    )
    return text % {"count": held}


def _link(webhook: Webhook) -> str:
    """Return the address that leads, after login, to the button that helps."""
    is_oauth = webhook.authorization_type == AuthorizationType.OAUTH2
    name = "connection_edit" if webhook.is_connection else "edit" if is_oauth else "detail"
    place = "#token" if is_oauth else ""
    return f"{settings.PUBLIC_URL}{reverse(f'webhooks:{name}', args=[webhook.pk])}{place}"


def _recipients(webhook: Webhook, now: datetime) -> list[str]:
    """Return the webhook's people, unless muted, and everybody's."""
    concerned = [webhook, *webhook.users.present()] if webhook.is_connection else [webhook]
    people = [who for one in concerned if not one.mutes_alerts(now) for who in one.alert_recipients]
    return sorted({*people, *settings.WEBHOOKS_ALERT_RECIPIENTS})


def _post(webhook: Webhook, recipients: list[str], subject: str, text: str) -> bool:
    """Give one message to the mail server; True when it took it or there is nobody to tell."""
    if not recipients:
        return True
    # A line break in a name would end the header, and a mail program shows what it is told to.
    line = decoded_body.escape_unseen(" ".join(subject.split()))
    message = EmailMessage(line, decoded_body.escape_unseen(text), to=recipients)
    try:
        message.send()
    except OSError as error:
        logger.warning("alert_not_sent webhook=%d error=%s", webhook.pk, type(error).__name__)
        return False
    return True
