"""The form's Success section: which responses of the receiver count as delivered."""

from collections.abc import Mapping, MutableMapping
from typing import Any

from django import forms
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from webhooks.delivery import outcomes
from webhooks.delivery.requests import STORED_BODY_BYTES, classify, no_response
from webhooks.delivery.success import OPERATORS, PRESETS, compile_rule
from webhooks.filters import OPERATOR_LABELS, PRESENCE
from webhooks.models import Attempt, Delivery, Outcome, ResponseRule, Webhook
from webhooks.models.messages import Message
from webhooks.payloads import MappingError, path_problem
from webhooks.ui.fields import StatusCodesField, WordsField

FIELDS = (
    "success_codes",
    "response_rule",
    "response_variable",
    "response_operator",
    "response_value",
    "response_error",
    "expired_token_errors",
    "retries_rejected",
)
# Fields with a default; they mean nothing on their own.
_HAVE_DEFAULTS = ("response_operator", "retries_rejected")
# Submit buttons that fill in a known API's rule, and apply the rule to the last response.
USE_PRESET, TRY = "use_success_preset", "try_success_rule"
# How many of the newest deliveries are searched for the last response; a webhook may have millions.
DELIVERIES_LOOKED_AT = 500


class SuccessCodesField(StatusCodesField):
    """Status codes that count as a success; [] means every 2xx."""

    pattern = "[2-5][0-9]{2}"
    mistake = gettext_lazy(
        "Enter status codes from 200 to 599, separated by commas, like 200, 409."
    )

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.widget.attrs["placeholder"] = "200, 201, 204"


def _path_field(label: Any, help_text: Any) -> forms.CharField:
    widget = forms.TextInput({"class": "mono", "autocomplete": "off", "spellcheck": "false"})
    return forms.CharField(
        label=label, max_length=200, required=False, widget=widget, help_text=help_text
    )


class SuccessFields(forms.Form):
    """The fields of the Success section, and its one-line summary."""

    success_codes = SuccessCodesField(
        label=gettext_lazy("Successful status codes"),
        help_text=gettext_lazy("For example 200, 409. Leave empty for 200 to 299."),
    )
    response_rule = forms.ChoiceField(
        label=gettext_lazy("Response condition"),
        required=False,
        choices=[("", gettext_lazy("None, only the status counts")), *ResponseRule.choices],
    )
    response_variable = _path_field(
        gettext_lazy("Response field"),
        gettext_lazy(
            "A path in the JSON, like “error”, “result.ok” or “data[0].status”. The whole "
            "response is “answer”."
        ),
    )
    response_operator = forms.ChoiceField(
        label=gettext_lazy("Compare"),
        required=False,
        choices=[(one.value, OPERATOR_LABELS[one]) for one in OPERATORS],
    )
    response_value = forms.CharField(
        label=gettext_lazy("Value"),
        max_length=500,
        required=False,
        help_text=gettext_lazy("For example “true”. Separate several values with commas."),
    )
    response_error = _path_field(
        gettext_lazy("Error field"),
        gettext_lazy("Where the response names its error, like “error.code”. The log shows it."),
    )
    expired_token_errors = WordsField(
        label=gettext_lazy("Expired-token errors"),
        help_text=gettext_lazy(
            "One per line, like “token_expired”. The token is refreshed and the request "
            "is sent again."
        ),
    )
    retries_rejected = forms.BooleanField(
        label=gettext_lazy("Retry rejected responses"),
        required=False,
        initial=True,
        help_text=gettext_lazy("On the retry schedule. Otherwise the delivery fails at once."),
    )

    def clean_response_operator(self) -> str:
        return self.cleaned_data["response_operator"] or OPERATORS[-2].value

    def check_rule(self, values: dict[str, Any]) -> None:
        """Check the rule as a whole; add each error to the field that has to change."""
        variable, reason = values.get("response_variable"), values.get("response_error")
        if values.get("response_rule"):
            if not variable and "response_variable" not in self.errors:
                self.add_error("response_variable", _("Enter a response field, like “error”."))
            # Commas alone are not a list of values either.
            is_blank = not (values.get("response_value") or "").strip(", ")
            is_wrong = self.errors.keys() & {"response_operator", "response_value"}
            if values.get("response_operator") not in PRESENCE and is_blank and not is_wrong:
                self.add_error("response_value", _("Give a value to compare with."))
        if (
            values.get("expired_token_errors")
            and not reason
            and "response_error" not in self.errors
        ):
            self.add_error("response_error", _("Enter the field of the error."))
        for name, path in (("response_variable", variable), ("response_error", reason)):
            if path and (sentence := path_problem(path)):
                self.add_error(name, sentence)

    @property
    def success_presets(self) -> list[tuple[str, str]]:
        return [(preset.key, preset.label) for preset in PRESETS.values()]

    @property
    def has_success_open(self) -> bool:
        """Return whether a field is set or has an error."""
        is_set = any(self[field].value() for field in FIELDS if field not in _HAVE_DEFAULTS)
        return is_set or any(self[field].errors for field in FIELDS)

    @property
    def success_summary(self) -> str:
        """Return one line about what the fields hold now, typed or stored."""
        codes = self["success_codes"].value()
        typed = self.fields["success_codes"].prepare_value(codes) or _("Every 2xx")
        rule = str(self["response_rule"].value() or "")
        if not rule:
            return typed
        operator = str(self["response_operator"].value() or "")
        labels = {one.value: str(OPERATOR_LABELS[one]) for one in OPERATORS}
        words = [
            str(ResponseRule(rule).label) if rule in ResponseRule.values else rule,
            str(self["response_variable"].value() or ""),
            labels.get(operator, operator),
        ]
        if operator not in PRESENCE:
            words.append(str(self["response_value"].value() or ""))
        return f"{typed}; {' '.join(words)}"[:200]


def fill_in(data: MutableMapping[str, Any]) -> None:
    """Fill the rule of the chosen API into the posted data."""
    if preset := PRESETS.get(data.get("success_preset", "")):
        for name, value in preset.fields.items():
            data[name] = "\n".join(value) if isinstance(value, list) else value


def preview(data: Mapping[str, Any], webhook_id: int | None, *, may_see: bool) -> dict[str, Any]:
    """Apply the typed rule to the newest stored response; return a message about the result."""
    rule = SuccessFields(data)
    if rule.is_valid():
        rule.check_rule(rule.cleaned_data)
    if rule.errors:
        return {"kind": "warning", "sentence": _("Fix the rule to try it.")}
    if not may_see:
        sentence = _("You have no permission to see payloads, and a response may repeat one.")
        return {"kind": "warning", "sentence": sentence}
    typed = Webhook(**rule.cleaned_data)
    last = _last_response(webhook_id) if webhook_id else None
    if last is None:
        sentence = _("No response yet. Send a test, then try again.")
        return {"kind": "info", "sentence": sentence}
    return {**_judged(typed, last), "when": last.started_at}


def _last_response(webhook_id: int) -> Attempt | None:
    """Return the newest attempt with a response, of the newest deliveries of a webhook."""
    rows = Delivery.objects.filter(webhook=webhook_id).order_by("-id")
    newest = list(rows.values_list("pk", flat=True)[:DELIVERIES_LOOKED_AT])
    answered = Attempt.objects.filter(delivery__in=newest, status_code__gt=0)
    # Ordered by id with a limit, PostgreSQL could read the attempts of all webhooks.
    last = max(answered.values_list("pk", flat=True), default=None)
    return Attempt.objects.filter(pk=last).first() if last else None


def _judged(webhook: Webhook, last: Attempt) -> dict[str, Any]:
    status = last.status_code or 0
    by_status = classify(
        no_response(Outcome.UNKNOWN, Message("said", {}))._replace(error=None, status_code=status)
    )
    outcome, message = by_status, None
    if webhook.has_success_rule:
        body = bytes(last.response_body)
        if len(body) >= STORED_BODY_BYTES and last.response_size > len(body):
            sentence = _(
                "Only the beginning of the last response is stored, so the rule cannot be "
                "tried on it."
            )
            return {"kind": "warning", "sentence": sentence}
        try:
            rule = compile_rule(webhook)
        except MappingError as error:
            return {"kind": "warning", "sentence": str(error)}
        headers = last.response_headers.encode("latin-1", "replace")
        outcome, message, _is_expired = rule.judge(
            status, body, last.response_size, by_status, headers=headers
        )
    if outcome is Outcome.SUCCEEDED:
        sentence = _("The last response, %d, counts as a success.") % status
        return {"kind": "success", "sentence": sentence}
    stored = outcomes.stored(message) if message else outcomes.of_status(outcome.value, status)
    return {"kind": "danger", "sentence": outcomes.sentence(stored)}
