"""How a webhook is doing, in one word and one sentence. Reads rows, writes nothing."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _

from webhooks.delivery import outcomes
from webhooks.delivery_log.retelling import retell
from webhooks.models import (
    AuthorizationType,
    GrantType,
    OAuthToken,
    PauseReason,
    TokenState,
    Webhook,
    WebhookState,
)
from webhooks.ui.webhook_form.credentials import check_host

if TYPE_CHECKING:
    from django_stubs_ext import StrOrPromise


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """`kind` colours it: success, warning, danger or neutral."""

    kind: str
    label: "StrOrPromise"
    sentence: "StrOrPromise"
    # What the provider's refusal came to; a page that shows it elsewhere leaves it out here.
    error: str = ""

    @property
    def full_sentence(self) -> str:
        return f"{self.sentence} {self.error}".strip()


def standing_of(webhook: Webhook) -> Standing:
    """Judge a webhook by what stops it first: a pause, then its token, then its receiver."""
    if not webhook.is_active:
        return _paused(webhook)
    if problem := _credentials_problem(webhook):
        return problem
    state = state_of(webhook)
    if state and state.failing_since_at:
        return Standing(
            kind="danger",
            label=_("Failing"),
            sentence=_("Every attempt fails. Last error: %s")
            % (outcomes.sentence(state.last_error) or _("unknown")),
        )
    return Standing(
        kind="success", label=_("Active"), sentence=_("Events are sent as they happen.")
    )


def _paused(webhook: Webhook) -> Standing:
    sentences = {
        PauseReason.GONE: _(
            "Paused because the receiver answered 410 Gone. Correct the URL, then resume."
        ),
        PauseReason.FAILING: _(
            "Paused because no delivery succeeded for days. Repair the receiver, then resume."
        ),
    }
    if sentence := sentences.get(PauseReason(webhook.pause_reason)):
        return Standing(kind="danger", label=_("Paused"), sentence=sentence)
    sentence = _("Nothing is sent. Deliveries that were waiting are held until it is resumed.")
    return Standing(kind="neutral", label=_("Paused"), sentence=sentence)


def _credentials_problem(webhook: Webhook) -> Standing | None:
    owner = webhook.credentials
    problem = (
        _token_problem(owner) if owner.authorization_type == AuthorizationType.OAUTH2 else None
    )
    if not owner.is_connection:
        return problem
    try:
        check_host(owner, webhook.url)
    except ValidationError as error:
        return Standing(kind="danger", label=_("On hold"), sentence=" ".join(error.messages))
    if problem is None:
        return None
    sentence = _("Connection “%(name)s”: %(sentence)s")
    return replace(problem, sentence=sentence % {"name": owner.name, "sentence": problem.sentence})


def _token_problem(webhook: Webhook) -> Standing | None:
    token = token_of(webhook)
    if token is None or token.state == TokenState.NONE:
        if webhook.grant_type == GrantType.CLIENT_CREDENTIALS:
            return None
        sentence = _("Deliveries are held until somebody presses Get new access token.")
        return Standing(kind="warning", label=_("On hold"), sentence=sentence)
    if token.state == TokenState.NEEDS_REAUTHORIZATION:
        sentence = _("Deliveries are held until the webhook is authorized again.")
        return Standing(
            kind="danger", label=_("On hold"), sentence=sentence, error=retell(token.last_error)
        )
    if token.state == TokenState.MISCONFIGURED:
        sentence = _("Deliveries are held until the OAuth settings are corrected.")
        return Standing(
            kind="danger", label=_("On hold"), sentence=sentence, error=retell(token.last_error)
        )
    return None


def needs_token(webhook: Webhook) -> bool:
    """Say whether somebody has to press Get new access token before anything is sent."""
    owner = webhook.credentials
    return (
        owner.authorization_type == AuthorizationType.OAUTH2
        and owner.grant_type == GrantType.AUTHORIZATION_CODE
        and _token_problem(owner) is not None
    )


def token_of(webhook: Webhook) -> OAuthToken | None:
    """Return the webhook's token row; no query when it was selected with the webhook."""
    return getattr(webhook, "token", None)


def state_of(webhook: Webhook) -> WebhookState | None:
    return getattr(webhook, "state", None)
