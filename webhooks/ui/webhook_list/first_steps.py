"""The way from an empty list to the first delivery; how far it is, the rows say.

Remembers nothing of its own: who deletes the only webhook begins again.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.urls import reverse
from django.utils.translation import gettext as _

from webhooks.models import AuthorizationType, Delivery, Status, Webhook
from webhooks.ui.status import needs_token, state_of

if TYPE_CHECKING:
    from django_stubs_ext import StrOrPromise


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One line of the panel; the first that is not done has the button."""

    title: "StrOrPromise"
    sentence: "StrOrPromise"
    is_done: bool
    url: str
    button: "StrOrPromise"
    # Who may press the button.
    permission: str
    is_next: bool = False


def of(webhook: Webhook | None, last: Delivery | None = None) -> list[Step]:
    """Return the four steps of a site with this one webhook or none; empty once all are done."""
    steps = [_address(webhook), _authorization(webhook), _test(webhook, last), _send(webhook)]
    waiting = [number for number, step in enumerate(steps) if not step.is_done]
    if not waiting:
        return []
    following = waiting[0]
    return [
        Step(
            title=step.title,
            sentence=step.sentence,
            # What comes later was not asked for yet.
            is_done=step.is_done and number < following,
            url=step.url,
            button=step.button,
            permission=step.permission,
            is_next=number == following,
        )
        for number, step in enumerate(steps)
    ]


def _address(webhook: Webhook | None) -> Step:
    return Step(
        title=_("Address and events"),
        sentence=webhook.url
        if webhook
        else _(
            "The URL of your system, for example https://example.com/hooks/calls, and what it "
            "wants to hear about."
        ),
        is_done=webhook is not None,
        url=reverse("webhooks:create"),
        button=_("Create a webhook"),
        permission="webhooks.add_webhook",
    )


def _authorization(webhook: Webhook | None) -> Step:
    credential = webhook.credential if webhook else None
    if webhook is None or credential is None:
        sentence = _("A login and a password, OAuth 2.0, or nothing: as your system expects.")
    elif needs_token(credential):
        sentence = _("The provider has to approve once. Nothing is sent before.")
    elif credential.authorization_type == AuthorizationType.NONE:
        sentence = _("Requests are sent without authorization.")
    else:
        sentence = credential.get_authorization_type_display()
    name = "connection_edit" if credential and credential.is_shared else "edit"
    pk = credential.pk if credential and credential.is_shared else webhook and webhook.pk
    return Step(
        title=_("Authorization"),
        sentence=sentence,
        is_done=credential is not None and not needs_token(credential),
        url=reverse(f"webhooks:{name}", args=[pk]) + "#token" if credential else "",
        button=_("Get an access token"),
        permission="webhooks.authorize_webhook",
    )


def _test(webhook: Webhook | None, last: Delivery | None) -> Step:
    state = state_of(webhook) if webhook else None
    is_done = bool(state and state.last_success_at) or bool(
        last and last.status == Status.SUCCEEDED
    )
    sentence = _("A sample event goes to your system, and you see its answer.")
    if is_done:
        sentence = _("Your system took an event.")
    elif last and last.attempt_count:
        sentence = _("Your system did not take the last event. Look at its answer and try again.")
    return Step(
        title=_("Test"),
        sentence=sentence,
        is_done=is_done,
        url=reverse("webhooks:edit", args=[webhook.pk]) + "#test" if webhook else "",
        button=_("Send a test"),
        permission="webhooks.test_webhook",
    )


def _send(webhook: Webhook | None) -> Step:
    is_done = bool(webhook and webhook.is_active)
    return Step(
        title=_("Done"),
        sentence=_("Events are sent as they happen.")
        if webhook is None or is_done
        else _("The webhook is paused. Resume it, and events are sent as they happen."),
        is_done=is_done,
        url=reverse("webhooks:detail", args=[webhook.pk]) if webhook else "",
        button=_("Go to the webhook"),
        permission="webhooks.view_webhook",
    )
