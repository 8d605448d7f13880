"""Fills the fields of a webhook from what is known of its provider."""

import re
from typing import Any

from django.utils.translation import gettext as _

from webhooks.oauth.errors import Misconfigured
from webhooks.oauth.providers import PROVIDERS, Preset, Question

_ANSWER = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,200}[A-Za-z0-9])?")

PRESETS: dict[str, Preset] = {preset.key: preset for preset in PROVIDERS}


def fill(key: str, answers: dict[str, str]) -> dict[str, Any]:
    """Return the values of our fields for a provider. Errors: Misconfigured, with a sentence."""
    preset = PRESETS.get(key)
    if preset is None:
        raise Misconfigured(_("“%s” is no known provider.") % key[:32])
    given = {question.name: _answer(question, answers) for question in preset.questions}
    filled = {name: _filled(value, given) for name, value in preset.fields.items()}
    return {**filled, "provider": key}


def token_types(provider: str) -> tuple[str, ...]:
    """Return the token types besides bearer that a provider gives."""
    return PRESETS[provider].token_types if provider in PRESETS else ()


def refresh_hint(provider: str) -> str:
    """Return how to get a refresh token from a provider."""
    if provider in PRESETS and (hint := PRESETS[provider].refresh_hint):
        return str(hint)
    return _(
        "Many providers give a refresh token only for a scope such as “offline_access” or an "
        "authorization parameter such as “access_type=offline”."
    )


def _answer(question: Question, answers: dict[str, str]) -> str:
    answer = (answers.get(question.name) or question.default).strip()
    # A host is all that is wanted of an address that was pasted whole.
    answer = answer.removeprefix("https://").rstrip("/")
    is_known = not question.choices or answer in question.choices
    if not is_known or not _ANSWER.fullmatch(answer):
        raise Misconfigured(
            _("Fill in %(field)s, for example “%(example)s”.")
            % {"field": question.label, "example": question.example or question.default}
        )
    return answer


def _filled(value: Any, answers: dict[str, str]) -> Any:
    if isinstance(value, str):
        return value.format(**answers)
    # Lists and mappings are the form's to change, the preset's are not.
    return value.copy() if isinstance(value, list | dict) else value
