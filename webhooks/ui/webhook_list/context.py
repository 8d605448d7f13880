"""Data of the list: rows, bars of the last 24 hours, and the first steps of a new site."""

from collections.abc import Callable, Sequence
from typing import Any

from django.db.models import BooleanField, ExpressionWrapper, OuterRef, QuerySet, Subquery
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from webhooks.alerts import problems
from webhooks.delivery_log import charts
from webhooks.delivery_log.figures import number
from webhooks.models import AuthorizationType, Delivery, Status, Webhook, token_of
from webhooks.ui.status import SECRETS_OF_WEBHOOK, needs_token, status_of

_HEIGHT, _STEP = 24, 4
# The minimum height, which keeps a single attempt visible.
_LEAST = 2.0


def with_columns(found: QuerySet[Webhook]) -> QuerySet[Webhook]:
    return (
        found.select_related("state", "credential__token")
        .defer(*SECRETS_OF_WEBHOOK)
        .annotate(
            last_delivery_id=Subquery(newest_delivery(OuterRef("pk"))),
            counts_as_failing=ExpressionWrapper(
                problems.are_failing(timezone.now()), output_field=BooleanField()
            ),
        )
    )


def rows(webhooks: list[Webhook]) -> list[dict[str, Any]]:
    last_ids = {webhook.pk: getattr(webhook, "last_delivery_id", None) for webhook in webhooks}
    last = Delivery.objects.in_bulk([pk for pk in last_ids.values() if pk])
    days = charts.last_day(last_ids)
    return [
        {
            "webhook": webhook,
            "token": token_of(webhook.credential),
            "status": status_of(webhook, is_failing=getattr(webhook, "counts_as_failing", None)),
            "last": last.get(last_ids[webhook.pk] or ""),
            "bars": day_bars(days[webhook.pk]),
        }
        for webhook in webhooks
    ]


def newest_delivery(webhook: int | OuterRef) -> QuerySet[Delivery, Any]:
    """Return a query for the id of a webhook's newest delivery: one index lookup."""
    return Delivery.objects.filter(webhook=webhook).order_by("-id").values("pk")[:1]


# ---- Bars of the last 24 hours: a small chart, and its numbers in words -----------------------


def day_bars(day: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """Draw (succeeded, failed) attempts of each hour, oldest first."""
    good, bad = (sum(column) for column in zip(*day, strict=True)) if day else (0, 0)
    most = max((sum(hour) for hour in day), default=0)
    bars = [_bar(index, hour, most) for index, hour in enumerate(day) if sum(hour)]
    return {
        # One path per colour: rectangles in fifty rows would double the size of the page.
        "good_path": "".join(_box(bar["x"], bar["good_top"], bar["good_height"]) for bar in bars),
        "bad_path": "".join(_box(bar["x"], bar["top"], bar["bad_height"]) for bar in bars),
        "width": _STEP * len(day),
        "height": _HEIGHT,
        "sentence": _bars_sentence(good + bad, bad),
    }


def _bar(index: int, hour: tuple[int, int], most: int) -> dict[str, Any]:
    good, bad = hour
    scale = _HEIGHT / most
    bad_height = max(bad * scale, _LEAST) if bad else 0.0
    good_height = max(good * scale, _LEAST) if good else 0.0
    # The minimum heights must not push the bar out of the chart.
    good_height = min(good_height, _HEIGHT - bad_height)
    return {
        "x": index * _STEP,
        "top": f"{_HEIGHT - good_height - bad_height:.1f}",
        "good_top": f"{_HEIGHT - good_height:.1f}",
        "good_height": f"{good_height:.1f}",
        "bad_height": f"{bad_height:.1f}",
    }


def _box(x: int, top: str, height: str) -> str:
    return f"M{x} {top}h3v{height}h-3z" if height != "0.0" else ""


def _bars_sentence(total: int, bad: int) -> str:
    if not total:
        return _("Nothing sent in the last 24 hours.")
    text = ngettext(
        "Last 24 hours: %(total)s attempt, %(bad)s failed.",
        "Last 24 hours: %(total)s attempts, %(bad)s failed.",
        total,
    )
    return text % {"total": number(total), "bad": number(bad)}


# ---- Steps from an empty list to the first delivery; progress is derived from the rows --------


def first_steps(
    webhook: Webhook | None, last: Delivery | None = None, *, may: Callable[[str], bool]
) -> list[dict[str, Any]]:
    """Return the four steps of a site with one webhook or none; empty once all are done.

    `may` checks a permission.
    """
    steps = [
        _address(webhook),
        _authorization(webhook, may),
        _test(webhook, last, may),
        _send(webhook),
    ]
    following = next((index for index, one in enumerate(steps) if not one["is_done"]), None)
    if following is None:
        return []
    for index, step in enumerate(steps):
        # Steps after the next one do not count as done yet.
        step |= {"is_done": index < following, "is_next": index == following}
    return steps


def _address(webhook: Webhook | None) -> dict[str, Any]:
    return {
        "title": _("Address and events"),
        "sentence": webhook.url
        if webhook
        else _(
            "The URL of your system, for example https://example.com/hooks/calls, and the "
            "events to send."
        ),
        "is_done": webhook is not None,
        "url": reverse("webhooks:create"),
        "button": _("Create a webhook"),
        "permission": "webhooks.add_webhook",
    }


def _form_url(webhook: Webhook, section: str, may: Callable[[str], bool]) -> str:
    """Return the URL of a section of the form; without its permission the webhook's page."""
    credential = webhook.credential
    if section == "token" and credential.is_shared:
        name, pk, permission = "connection_edit", credential.pk, "webhooks.change_connection"
    else:
        name, pk, permission = "edit", webhook.pk, "webhooks.change_webhook"
    if may(permission):
        return f"{reverse(f'webhooks:{name}', args=[pk])}#{section}"
    # It has the same buttons.
    return reverse("webhooks:detail", args=[webhook.pk])


def _authorization(webhook: Webhook | None, may: Callable[[str], bool]) -> dict[str, Any]:
    credential = webhook.credential if webhook else None
    if webhook is None or credential is None:
        sentence = _("A login and password, OAuth 2.0, or nothing, as your system expects.")
    elif needs_token(credential):
        sentence = _("The provider has to approve once. Nothing is sent before that.")
    elif credential.authorization_type == AuthorizationType.NONE:
        sentence = _("Requests are sent without authorization.")
    else:
        sentence = credential.get_authorization_type_display()
    return {
        "title": _("Authorization"),
        "sentence": sentence,
        "is_done": credential is not None and not needs_token(credential),
        "url": _form_url(webhook, "token", may) if webhook else "",
        "button": _("Get an access token"),
        "permission": "webhooks.authorize_webhook",
    }


def _test(
    webhook: Webhook | None, last: Delivery | None, may: Callable[[str], bool]
) -> dict[str, Any]:
    state = webhook.known_state if webhook else None
    is_done = bool(state and state.last_success_at) or bool(
        last and last.status == Status.SUCCEEDED
    )
    sentence = _("A sample event goes to your system, and you see its response.")
    if is_done:
        sentence = _("Your system accepted an event.")
    elif last and last.attempt_count:
        sentence = _("Your system did not accept the last event. Check its response and try again.")
    return {
        "title": _("Test"),
        "sentence": sentence,
        "is_done": is_done,
        "url": _form_url(webhook, "test", may) if webhook else "",
        "button": _("Send a test"),
        "permission": "webhooks.test_webhook",
    }


def _send(webhook: Webhook | None) -> dict[str, Any]:
    is_done = bool(webhook and webhook.is_active)
    return {
        "title": _("Done"),
        "sentence": _("Events are sent as they happen.")
        if webhook is None or is_done
        else _("The webhook is paused. Resume it, and events are sent as they happen."),
        "is_done": is_done,
        "url": reverse("webhooks:detail", args=[webhook.pk]) if webhook else "",
        "button": _("Go to the webhook"),
        "permission": "webhooks.view_webhook",
    }
