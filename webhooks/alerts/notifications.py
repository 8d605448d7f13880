"""Notifies people of problems with their webhooks by email, channels and operational events.

Stores an `Incident` for each problem that `problems` finds, and sends one message when it opens, a
reminder a day, and one when it is over. Safe with any number of beats: a conditional UPDATE decides
which process sends.
"""

import logging
import random
import time
from collections.abc import Callable, Container
from datetime import datetime, timedelta
from smtplib import SMTPDataError, SMTPRecipientsRefused
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.mail import EmailMessage
from django.db import transaction
from django.db.models import Q, QuerySet
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from webhooks import catalogue
from webhooks.alerts import channels, problems
from webhooks.delivery import outcomes, queue
from webhooks.delivery.fan_out import NewEvent, accept
from webhooks.delivery_log import decoded_body
from webhooks.models import (
    AlertChannel,
    ChannelKind,
    Credential,
    Delivery,
    Incident,
    IncidentKind,
    Status,
    Webhook,
    messages,
    origin_of,
    token_of,
)

logger = logging.getLogger(__name__)

Subject = Webhook | Credential

_REMIND_AFTER = timedelta(days=1)
# Time limit of one run for messages about closed incidents, and again for open ones; the next run
# continues with the rest. A mail server that hangs would delay the sweep and token refreshes, which
# share the worker's slots with this task.
NOTIFY_SECONDS = 5.0
# Deliveries on hold are counted up to here; a mail needs no exact number beyond.
_MAX_COUNTED = 1000
# How many of a webhook's newest deliveries are searched for a failed one.
_DELIVERIES_LOOKED_AT = 50
# Length of the column.
_MAX_STORED = 1000
_EVENT_TYPES = {
    IncidentKind.REAUTHORIZATION: "webhook.reauthorization_required",
    IncidentKind.MISCONFIGURED: "webhook.failing",
    IncidentKind.FAILING: "webhook.failing",
    IncidentKind.PAUSED: "webhook.disabled",
}
_RECOVERED = "webhook.recovered"
# Incidents that the end of a person's access at a provider causes; sent together.
_OF_GRANTS = (IncidentKind.REAUTHORIZATION, IncidentKind.TOKEN_ENDING)
# Variables of the catalogue about failures, by the event types that contain them.
_FACTS = {
    "webhook.failing": ("failing_since_at", "last_status_code"),
    "webhook.disabled": ("failing_since_at", "last_status_code"),
    _RECOVERED: ("last_status_code",),
}
# Headlines for an opened incident, a reminder and a closed incident; and what to do.
_TEXTS = {
    IncidentKind.REAUTHORIZATION: (
        gettext_lazy("“%(name)s” needs re-authorization"),
        gettext_lazy("Reminder: “%(name)s” needs re-authorization"),
        gettext_lazy("“%(name)s” works again"),
        gettext_lazy("Open the webhook and press Get new access token."),
    ),
    IncidentKind.MISCONFIGURED: (
        gettext_lazy("“%(name)s” has a misconfigured OAuth client"),
        gettext_lazy("Reminder: “%(name)s” has a misconfigured OAuth client"),
        gettext_lazy("“%(name)s” works again"),
        gettext_lazy(
            "Open the webhook and correct its OAuth settings. Its token panel says what the "
            "provider answered."
        ),
    ),
    IncidentKind.FAILING: (
        gettext_lazy("“%(name)s” is failing"),
        gettext_lazy("Reminder: “%(name)s” is failing"),
        gettext_lazy("“%(name)s” works again"),
        gettext_lazy("Open the webhook to see what its receiver answers."),
    ),
    IncidentKind.PAUSED: (
        gettext_lazy("“%(name)s” was paused"),
        gettext_lazy("Reminder: “%(name)s” is paused"),
        gettext_lazy("“%(name)s” is active again"),
        gettext_lazy("Fix the receiver, send a test, then resume the webhook."),
    ),
    IncidentKind.TOKEN_ENDING: (
        gettext_lazy("“%(name)s” needs re-authorization soon"),
        gettext_lazy("Reminder: “%(name)s” needs re-authorization soon"),
        gettext_lazy("“%(name)s” has a new token"),
        gettext_lazy("Press Get new access token before that, and nothing goes on hold."),
    ),
}


def run(now: datetime | None = None, should_stop: Callable[[], bool] = lambda: False) -> int:
    """Open, remind of and close incidents; return how many messages were sent.

    `now` is the database's time by default: if workers' clocks differed, one worker would open an
    incident that the next one closes. `should_stop` is asked after each message.
    """
    now = now or queue.now()
    open_now = {
        problems.key_of(incident): incident for incident in Incident.objects.filter(closed_at=None)
    }
    found = problems.find(now, known=open_now)
    Incident.objects.bulk_create(
        [
            Incident(
                webhook_id=webhook_id,
                credential_id=credential_id,
                kind=kind,
                message=_cut_message(problem.message),
                opened_at=min(problem.began_at, now),
            )
            for (webhook_id, credential_id, kind), problem in found.items()
            if (webhook_id, credential_id, kind) not in open_now
        ],
        ignore_conflicts=True,
    )
    # An ending token still works.
    affected = {key[:2] for key in found if key[2] != IncidentKind.TOKEN_ENDING}
    owing = Incident.objects.filter(owes_email=True, closed_at__gt=now - _REMIND_AFTER)
    over = [incident for key, incident in open_now.items() if key not in found]
    sent, ends_at = 0, time.monotonic() + NOTIFY_SECONDS
    for incident in [*over, *owing]:
        is_well = _is_well(incident, affected)
        with queue.unless_locked("incident"):
            sent += (_mail_again if incident.owes_email else _close)(incident, now, is_well=is_well)
        if should_stop():
            return sent
        if time.monotonic() > ends_at:
            break
    unnotified = Q(notified_at=None) | Q(notified_at__lte=now - _REMIND_AFTER)
    waiting = Incident.objects.filter(unnotified, closed_at=None)
    groups: dict[tuple[object, ...], list[Incident]] = {}
    for incident in waiting.select_related(
        "webhook__state", "webhook__credential__token", "credential__token"
    ):
        if (problem := found.get(problems.key_of(incident))) is None:
            # Over; the next run closes it.
            continue
        if incident.notified_at is not None and _is_muted(incident.subject, now):
            continue
        # A reminder describes the current state.
        incident.message = _cut_message(problem.message)
        groups.setdefault(_group_key(incident, now), []).append(incident)
    began = list(groups.values())
    # Random order, so that slow mails do not come first in every run.
    random.shuffle(began)
    ends_at = time.monotonic() + NOTIFY_SECONDS
    for group in began:
        with queue.unless_locked("incident"):
            sent += _notify(group, now)
        if should_stop():
            return sent
        if time.monotonic() > ends_at:
            break
    channels.send_due(now)
    return sent


def send_test_mail(webhook: Webhook) -> bool:
    """Mail the webhook's own recipients, muted or not; return whether the server accepted it.

    Uses `alert_recipients` of the instance, even if unsaved.
    """
    if not webhook.alert_recipients:
        return False
    subject = _("Test: alerts of “%(name)s” arrive") % {"name": webhook.name}
    text = _("This is a test. Alerts about the webhook “%(name)s” arrive here.")
    body = f"{text % {'name': webhook.name}}\n\n{_link(webhook)}\n"
    return _mail(webhook.uid, webhook.alert_recipients, subject, body)


def send_test(channel: AlertChannel, now: datetime) -> bool:
    """Send a test to one channel now; return whether it was accepted."""
    headline = _("Test: alerts arrive here")
    text = _("This is a test. Alerts about webhooks arrive here.")
    link = f"{settings.PUBLIC_URL}{reverse('webhooks:alerts')}"
    if channel.kind == ChannelKind.EMAIL:
        if not _mail(channel.uid, [channel.recipient], headline, f"{text}\n\n{link}\n"):
            return False
        AlertChannel.objects.filter(pk=channel.pk).update(sent_at=now)
        return True
    content = {"title": headline, "text": text, "link": link, "kind": "test", "is_closed": False}
    channels.deliver(channel, content, now)
    return not channel.last_error


def _group_key(incident: Incident, now: datetime) -> tuple[object, ...]:
    """Return the key that groups incidents into one message.

    When a person leaves or changes a password, all their grants at a provider end at once: those
    with the same recipients become one message. Any other incident gets a message of its own.
    """
    credential = _credential_of(incident.subject)
    token = token_of(credential)
    if incident.kind not in _OF_GRANTS or token is None or token.granted_by_id is None:
        return (incident.pk,)
    server = urlsplit(credential.token_url).netloc
    people = tuple(_recipients(incident.subject, now))
    is_reminder = incident.notified_at is not None
    return incident.kind, token.granted_by_id, server, people, is_reminder


def _notify(group: list[Incident], now: datetime) -> int:
    """Send a first message or reminder about a group; return 1 if this process sent it, else 0."""
    with transaction.atomic():
        claimed = [incident for incident in group if _claim(incident, now)]
        if not claimed:
            return 0
        headline, text = _tell_channels(claimed, now, is_reminder=group[0].notified_at is not None)
    error = _mail_people(claimed[0].subject, headline, text, now)
    if error and not _is_final(error):
        for incident in claimed:
            _unclaim(incident, now)
        return 0
    return 1


def _tell_channels(claimed: list[Incident], now: datetime, *, is_reminder: bool) -> tuple[str, str]:
    """Queue the message for channels, which do not wait for the mail server; return its texts."""
    first = claimed[0]
    headline = _headline(first, is_reminder=is_reminder)
    text = _text(first)
    if len(claimed) > 1:
        headline, text = _headline_of_many(claimed, is_reminder=is_reminder), _text_of_many(claimed)
    if missed := [incident for incident in claimed if _misses_channels(incident, now)]:
        covering = channels.covering([pk for one in missed for pk in _webhook_ids(one.subject)])
        channels.queue(covering, _content(first, headline, text), now)
        for incident in missed:
            event_type = _EVENT_TYPES.get(IncidentKind(incident.kind))
            is_first = incident.notified_at is None and incident.channels_notified_at is None
            if event_type and is_first:
                _publish(event_type, incident.subject, problems.sentence(incident.message))
        # A mute reaches no one: a channel that is added before it ends still gets the message.
        reached = [incident.pk for incident in missed if not _is_muted(incident.subject, now)]
        Incident.objects.filter(pk__in=reached).update(channels_notified_at=now)
    return headline, text


def _misses_channels(incident: Incident, now: datetime) -> bool:
    """Return whether channels did not get this message at an earlier try of its mail."""
    notified_at = incident.channels_notified_at
    return notified_at is None or notified_at <= now - _REMIND_AFTER


def _claim(incident: Incident, now: datetime) -> bool:
    """Claim an incident's message by a conditional UPDATE; return whether this process has it."""
    rows = Incident.objects.filter(pk=incident.pk, notified_at=incident.notified_at, closed_at=None)
    notified_at = _notified_at(incident.subject, now)
    return bool(rows.update(notified_at=notified_at, message=incident.message))


def _unclaim(incident: Incident, now: datetime) -> None:
    rows = Incident.objects.filter(pk=incident.pk, notified_at=_notified_at(incident.subject, now))
    rows.update(notified_at=incident.notified_at)


def _notified_at(subject: Subject, now: datetime) -> datetime:
    """Return `now`; if no one is reached, a time that makes the next message due after the mute."""
    return now - _REMIND_AFTER if _is_muted(subject, now) else now


def _cut_message(message: str) -> str:
    """Return a message cut to the length of the column."""
    return messages.cut(message, _MAX_STORED)


def _is_muted(subject: Subject, now: datetime) -> bool:
    """Return whether no one is notified until a person or the time ends the mute."""
    if not any(one.alert_recipients and one.mutes_alerts(now) for one in _concerned(subject)):
        return False
    return not (_recipients(subject, now) or _channels(subject).exists())


def _is_well(incident: Incident, affected: Container[tuple[int | None, int | None]]) -> bool:
    """Return whether the subject of an incident that is over has no other problem.

    `affected` are the ids of the webhooks and connections that have problems, as in a `Key`.
    """
    # A webhook's credentials may have become a connection since, or it may have chosen one.
    used = incident.webhook.credential_id if incident.webhook else incident.credential_id
    own = (incident.webhook_id, incident.credential_id)
    return own not in affected and (None, used) not in affected


def _close(incident: Incident, now: datetime, *, is_well: bool) -> int:
    """Close an incident; notify people unless its subject still has another problem."""
    with transaction.atomic():
        if not Incident.objects.filter(pk=incident.pk, closed_at=None).update(closed_at=now):
            return 0
        incident.closed_at = now
        if _is_gone(incident) or not is_well or incident.notified_at is None:
            return 0
        subject = incident.subject
        headline, text = _texts_of_end(incident)
        if incident.kind in _EVENT_TYPES:
            _publish(_RECOVERED, subject, f"{headline}.")
        channels.queue(_channels(subject), _content(incident, headline, text), now)
    return _mail_end(incident, now)


def _is_gone(incident: Incident) -> bool:
    """Return whether a problem ended without recovery: its subject was deleted or paused."""
    subject = incident.subject
    is_failing = incident.kind == IncidentKind.FAILING
    is_paused = is_failing and isinstance(subject, Webhook) and not subject.is_active
    return subject.deleted_at is not None or is_paused


def _texts_of_end(incident: Incident) -> tuple[str, str]:
    """Return the headline and the text of the message that an incident is over."""
    subject = incident.subject
    _first, _again, over, _advice = _TEXTS[IncidentKind(incident.kind)]
    headline = str(over) % {"name": subject.name}
    return headline, f"{headline}.\n\n{_link(subject)}\n"


def _mail_again(incident: Incident, now: datetime, *, is_well: bool) -> int:
    """Repeat the mail that an incident is over, unless that is no longer so."""
    if not Incident.objects.filter(pk=incident.pk, owes_email=True).update(owes_email=False):
        return 0
    return 0 if _is_gone(incident) or not is_well else _mail_end(incident, now)


def _mail_end(incident: Incident, now: datetime) -> int:
    """Mail that an incident is over; return 1 if it was accepted or has no recipient, else 0."""
    error = _mail_people(incident.subject, *_texts_of_end(incident), now)
    if error and not _is_final(error):
        Incident.objects.filter(pk=incident.pk).update(owes_email=True)
    return int(error is None)


def _publish(event_type: str, subject: Subject, message: str) -> None:
    state = subject.known_state if isinstance(subject, Webhook) else None
    facts: dict[str, Any] = {
        name: getattr(state, name) for name in _FACTS.get(event_type, ()) if state is not None
    }
    payload = {
        "webhook_id": subject.uid,
        "webhook_name": subject.name,
        # Other receivers get this, and what comes after the origin may be a secret.
        "webhook_url": origin_of(subject.url) if isinstance(subject, Webhook) else "",
        "message": message,
        **{name: value for name, value in facts.items() if value is not None},
    }
    if since := payload.get("failing_since_at"):
        payload["failing_since_at"] = since.isoformat()
    with transaction.atomic():
        accept([NewEvent(event_type, payload, source="webhooks")])


def _headline(incident: Incident, *, is_reminder: bool) -> str:
    first, again, _over, _advice = _TEXTS[IncidentKind(incident.kind)]
    return str(again if is_reminder else first) % {"name": incident.subject.name}


def _headline_of_many(group: list[Incident], *, is_reminder: bool) -> str:
    texts = {
        (IncidentKind.REAUTHORIZATION, False): _("%(count)d access tokens need re-authorization"),
        (IncidentKind.REAUTHORIZATION, True): _(
            "Reminder: %(count)d access tokens need re-authorization"
        ),
        (IncidentKind.TOKEN_ENDING, False): _("%(count)d access tokens need re-authorization soon"),
        (IncidentKind.TOKEN_ENDING, True): _(
            "Reminder: %(count)d access tokens need re-authorization soon"
        ),
    }
    return texts[IncidentKind(group[0].kind), is_reminder] % {"count": len(group)}


def _text_of_many(group: list[Incident]) -> str:
    """Return the text of a mail about one person's grants at one provider, with a link for each."""
    credential = _credential_of(group[0].subject)
    about = {
        "person": str(credential.token.granted_by),
        "server": urlsplit(credential.token_url).netloc,
    }
    lines = [
        f"{_headline_of_many(group, is_reminder=False)}.",
        _("%(person)s granted all of them at %(server)s.") % about,
        problems.sentence(group[0].message),
        _(
            "This page leads through all of them, one after another, or combines them into one "
            "connection that needs a single approval:"
        ),
        settings.PUBLIC_URL + reverse("webhooks:grants"),
        *(f"“{one.subject.name}”: {_link(one.subject)}" for one in group),
    ]
    return "\n\n".join(line for line in lines if line) + "\n"


def _text(incident: Incident) -> str:
    """Return the text of a mail: what happened, deliveries on hold, what to do, and a link."""
    *_headlines, advice = _TEXTS[IncidentKind(incident.kind)]
    lines = [
        f"{_headline(incident, is_reminder=False)}.",
        problems.sentence(incident.message),
        "\n".join(f"{label}: {value}" for label, value in _facts(incident)),
        _waiting(incident.subject),
        str(advice),
        _link(incident.subject),
    ]
    return "\n\n".join(line for line in lines if line) + "\n"


def _facts(incident: Incident) -> list[tuple[str, str]]:
    """Return label and value of each fact about an incident, for people."""
    subject = incident.subject
    found = [
        (_("Webhook") if isinstance(subject, Webhook) else _("Connection"), subject.name),
        (_("Since"), f"{incident.opened_at:%Y-%m-%d %H:%M} UTC"),
    ]
    delivery = _failed_delivery(subject)
    if delivery is None:
        return found
    event_type = delivery.event.type
    answer = str(delivery.status_code or "") or _last_error(delivery)
    return [
        *found,
        (_("Event"), f"{catalogue.label_of(event_type)} ({event_type})"),
        (_("Last response"), answer or _("none")),
        (_("Delivery"), _delivery_url(delivery)),
    ]


def _data(incident: Incident) -> dict[str, Any]:
    """Return the data about an incident, for programs; what does not apply is None."""
    subject = incident.subject
    is_webhook = isinstance(subject, Webhook)
    found = {
        "kind": incident.kind,
        "is_closed": incident.closed_at is not None,
        "opened_at": incident.opened_at.isoformat(),
        "webhook_name": subject.name if is_webhook else None,
        "connection_name": None if is_webhook else subject.name,
        "event_type": None,
        "last_status_code": None,
        "last_error": None,
        "delivery_id": None,
        "delivery_url": None,
    }
    if (delivery := _failed_delivery(subject)) is None:
        return found
    return {
        **found,
        "event_type": delivery.event.type,
        "last_status_code": delivery.status_code,
        # A sentence: an attempt can have several errors, each a code with parameters.
        "last_error": _last_error(delivery) or None,
        "delivery_id": delivery.pk,
        "delivery_url": _delivery_url(delivery),
    }


def _last_error(delivery: Delivery) -> str:
    attempt = delivery.attempts.order_by("-number").only("error").first()
    return outcomes.sentence(attempt.error) if attempt else ""


def _delivery_url(delivery: Delivery) -> str:
    return f"{settings.PUBLIC_URL}{reverse('webhooks:delivery', args=[delivery.pk])}"


def _failed_delivery(subject: Subject) -> Delivery | None:
    """Return a webhook's newest attempted delivery that has not succeeded, if it is recent."""
    if not isinstance(subject, Webhook):
        return None
    newest = Delivery.objects.filter(webhook=subject).order_by("-id").select_related("event")
    found = newest.defer("event__payload")[:_DELIVERIES_LOOKED_AT]
    return next((one for one in found if one.attempt_count and one.status != "succeeded"), None)


def _content(incident: Incident, headline: str, text: str) -> dict[str, Any]:
    """Return the content of a channel's message: texts for people, data for programs."""
    link = _link(incident.subject)
    # Without the headline, and without the link that ends the mail about a single subject.
    _headline, *lines = text.removesuffix(f"\n\n{link}\n").strip().split("\n\n")
    return {"title": headline, "text": "\n\n".join(lines), "link": link, **_data(incident)}


def _waiting(subject: Subject) -> str:
    rows = Delivery.objects.in_status(Status.HELD)
    if isinstance(subject, Webhook):
        rows = rows.filter(webhook=subject)
    else:
        rows = rows.filter(webhook__in=subject.users.all())
    if not (held := rows.count_to(_MAX_COUNTED)):
        return ""
    if held > _MAX_COUNTED:
        text = _("More than %(count)d deliveries wait and go out once it works again.")
        return text % {"count": _MAX_COUNTED}
    text = ngettext(
        "%(count)d delivery is on hold and is sent once it works again.",
        "%(count)d deliveries are on hold and are sent once it works again.",
        held,
    )
    return text % {"count": held}


def _link(subject: Subject) -> str:
    """Return the URL of the page (login required) where the problem can be fixed."""
    credential = _credential_of(subject)
    name = (
        "connection_edit" if credential is subject else "edit" if credential.is_oauth else "detail"
    )
    place = "#token" if credential.is_oauth else ""
    return f"{settings.PUBLIC_URL}{reverse(f'webhooks:{name}', args=[subject.pk])}{place}"


def _credential_of(subject: Subject) -> Credential:
    return subject.private_credential if isinstance(subject, Webhook) else subject


def _recipients(subject: Subject, now: datetime) -> list[str]:
    """Return the recipients of a webhook, or of a connection and its webhooks, except muted ones.

    The addresses of email channels that cover them are included.
    """
    unmuted = [one for one in _concerned(subject) if not one.mutes_alerts(now)]
    people = [who for one in unmuted for who in one.alert_recipients]
    mails = _channels(subject).filter(kind=ChannelKind.EMAIL)
    return sorted({*people, *mails.values_list("recipient", flat=True)})


def _concerned(subject: Subject) -> list[Subject]:
    """Return a webhook, or a connection and the webhooks that use it."""
    users = subject.users.filter(deleted_at=None) if isinstance(subject, Credential) else ()
    return [subject, *users]


def _channels(subject: Subject) -> QuerySet[AlertChannel]:
    return channels.covering(_webhook_ids(subject))


def _webhook_ids(subject: Subject) -> list[int]:
    if isinstance(subject, Webhook):
        return [subject.pk]
    return list(subject.users.filter(deleted_at=None).values_list("pk", flat=True))


def _mail_people(subject: Subject, headline: str, text: str, now: datetime) -> Exception | None:
    """Mail the recipients of a subject; return the error if the mail was not accepted."""
    error = _send(subject.uid, _recipients(subject, now), headline, text)
    if error is None:
        _channels(subject).filter(kind=ChannelKind.EMAIL).update(sent_at=now)
    return error


def _mail(about: str, recipients: list[str], subject: str, text: str) -> bool:
    """Give one message to the mail server; True if it was accepted or has no recipient."""
    return _send(about, recipients, subject, text) is None


def _send(about: str, recipients: list[str], subject: str, text: str) -> Exception | None:
    """Send one mail if it has recipients; return the error if it was not accepted."""
    if not recipients:
        return None
    # A line break in a name would end the header, and mail programs interpret control characters.
    line = decoded_body.escape_invisible(" ".join(subject.split()))
    message = EmailMessage(line, decoded_body.escape_invisible(text), to=recipients)
    try:
        message.send()
    except (OSError, ValueError, RuntimeError) as error:
        # ValueError: an address that cannot be written into a mail, such as DEFAULT_FROM_EMAIL.
        # RuntimeError: this machine has no thread left for the mail's deadline.
        logger.warning("alert_not_sent about=%s error=%s", about, type(error).__name__)
        return error
    return None


def _is_final(error: Exception) -> bool:
    """Return whether the mail server refuses the mail, or all its recipients, permanently.

    Such a mail is not repeated (RFC 5321 section 4.2.1).
    """
    if isinstance(error, SMTPRecipientsRefused):
        return all(code >= 500 for code, _text in error.recipients.values())
    return isinstance(error, SMTPDataError) and error.smtp_code >= 500
