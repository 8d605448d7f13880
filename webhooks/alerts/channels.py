"""Alerts to Slack, Microsoft Teams, Telegram and any webhook URL: recipients, formats, retries.

Email is sent by `notifications`. A message stays in the database until its channel has accepted
it; the next run of the same task sends it again.
"""

import logging
import time
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any

from django.db.models import F, Q, QuerySet
from django.utils.translation import gettext as _

from webhooks import network
from webhooks.delivery import queue as delivery_queue
from webhooks.models import AlertChannel, AlertMessage, ChannelKind, messages
from webhooks.security.encryption import SecretUnreadableError

logger = logging.getLogger(__name__)

TELEGRAM_API = "https://api.telegram.org"
POST_SECONDS = 8.0
# The next run continues with the rest, so that channels that hang do not delay other tasks. Two of
# them leave time for a third.
_SENT_AT_ONCE, SEND_SECONDS = 20, 2 * POST_SECONDS
# Retries after 1, 2, 4 ... 60 minutes, for about a day; then a reminder of the incident follows.
_MAX_ATTEMPTS = 28
_MAX_DELAY = timedelta(hours=1)
# Statuses worth a retry, besides 5xx.
_TRANSIENT = (408, 425, 429)


def covering(webhook_ids: Collection[int]) -> QuerySet[AlertChannel]:
    """Return the channels that are notified of these webhooks, email included."""
    return AlertChannel.objects.filter(Q(webhooks=None) | Q(webhooks__in=webhook_ids)).distinct()


def queue(channels: QuerySet[AlertChannel], content: Mapping[str, Any], now: datetime) -> None:
    """Store a message for each channel except email addresses; `send_due` sends it."""
    others = channels.exclude(kind=ChannelKind.EMAIL)
    AlertMessage.objects.bulk_create(
        AlertMessage(channel=channel, content=dict(content), next_attempt_at=now)
        for channel in others
    )


def send_due(now: datetime) -> int:
    """Send due messages; return how many were accepted. Safe with any number of callers.

    After a failure all due messages of a channel wait as long as the one that failed, so one that
    hangs delays a run by a single message, and no later run before its next retry.
    """
    due = AlertMessage.objects.filter(next_attempt_at__lte=now).select_related("channel")
    failing: set[int] = set()
    accepted, ends_at = 0, time.monotonic() + SEND_SECONDS
    for _turn in range(_SENT_AT_ONCE):
        row = due.exclude(channel__in=failing).order_by("next_attempt_at", "pk").first()
        if row is None:
            break
        if _waits_for_older(row):
            continue
        if _send(row, now):
            accepted += 1
        else:
            failing.add(row.channel_id)
        if time.monotonic() > ends_at:
            break
    return accepted


def _waits_for_older(row: AlertMessage) -> bool:
    """Postpone a message until the older ones about its subject were sent; return whether it was.

    “Is failing” that arrives after “works again” would be the last word about a webhook.
    """
    older = AlertMessage.objects.filter(
        channel=row.channel_id, content__link=row.content.get("link"), pk__lt=row.pk
    )
    latest = older.order_by("-next_attempt_at").values_list("next_attempt_at", flat=True).first()
    if latest is None:
        return False
    mine = AlertMessage.objects.filter(pk=row.pk, next_attempt_at=row.next_attempt_at)
    mine.update(next_attempt_at=latest)
    return True


def _send(row: AlertMessage, now: datetime) -> bool:
    delay = min(timedelta(minutes=2 ** min(row.attempt_count, 6)), _MAX_DELAY)
    mine = AlertMessage.objects.filter(pk=row.pk, next_attempt_at=row.next_attempt_at)
    claimed = mine.update(next_attempt_at=now + delay, attempt_count=F("attempt_count") + 1)
    if not claimed:
        return False
    is_final = deliver(row.channel, row.content, now)
    if row.channel.last_error:
        others = AlertMessage.objects.filter(channel=row.channel_id, next_attempt_at__lte=now)
        others.update(next_attempt_at=now + delay, attempt_count=F("attempt_count") + 1)
    if is_final or row.attempt_count + 1 >= _MAX_ATTEMPTS:
        AlertMessage.objects.filter(pk=row.pk).delete()
    return is_final and not row.channel.last_error


def deliver(channel: AlertChannel, content: Mapping[str, Any], now: datetime) -> bool:
    """Send one message now; return whether the result is final: accepted, or rejected permanently.

    The channel stores the reason for a failure, as a code of `outcomes.SENTENCES`.
    """
    error, is_final = post(channel, content)
    channel.last_error = messages.cut(error, 500)
    if not error:
        channel.sent_at = now
    rows = AlertChannel.objects.filter(pk=channel.pk)
    # Otherwise an accepted message would be sent again.
    with delivery_queue.unless_locked("channel"):
        rows.update(last_error=channel.last_error, sent_at=channel.sent_at)
    return is_final


def post(channel: AlertChannel, content: Mapping[str, Any]) -> tuple[str, bool]:
    try:
        url, body = _request(channel, content)
        session = network.GuardedSession(total_seconds=POST_SECONDS)
        status = session.post(url, json=body).status_code
    except SecretUnreadableError:
        # It is sent once the right key is back.
        return messages.dump("not_built", error="SecretUnreadableError"), False
    except network.NetworkError as error:
        logger.warning("alert_not_sent channel=%s error=%s", channel.uid, error.code)
        failure = error.failure
        return messages.dump(failure.code, **failure.params), error.permanent
    if 200 <= status < 300:
        return "", True
    logger.warning("alert_not_sent channel=%s status=%s", channel.uid, status)
    is_final = status < 500 and status not in _TRANSIENT
    code = "http_refused" if is_final else "http_server_error"
    return messages.dump(code, status=status), is_final


def _request(channel: AlertChannel, content: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the URL for a message, and its body in the format of the service."""
    title, text, link = content["title"], content["text"], content["link"]
    whole = f"{title}\n\n{text}\n\n{link}"
    match ChannelKind(channel.kind):
        case ChannelKind.SLACK:
            # https://docs.slack.dev/messaging/formatting-message-text: escape these three.
            for sign, escaped in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
                whole = whole.replace(sign, escaped)
            return channel.secret, {"text": whole}
        case ChannelKind.TEAMS:
            return channel.secret, _adaptive_card(title, text, link)
        case ChannelKind.TELEGRAM:
            url = f"{TELEGRAM_API}/bot{channel.secret}/sendMessage"
            # Telegram's limit is 4,096 characters.
            return url, {"chat_id": channel.recipient, "text": whole[:4000]}
    return channel.secret, dict(content)


def _adaptive_card(title: str, text: str, link: str) -> dict[str, Any]:
    card = {
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": [
            _text_block(title, weight="bolder"),
            *(_text_block(line) for line in text.split("\n") if line),
        ],
        "actions": [{"type": "Action.OpenUrl", "title": _("Open"), "url": link}],
    }
    kind = "application/vnd.microsoft.card.adaptive"
    return {"type": "message", "attachments": [{"contentType": kind, "content": card}]}


def _text_block(text: str, **style: str) -> dict[str, Any]:
    """Return plain text: a TextBlock would render Markdown links in a provider's error text.

    Source: https://adaptivecards.io/explorer/TextRun.html.
    """
    return {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": text, **style}]}
