"""The live preview of the form's request, and the rows of its parameters."""

import time
from typing import Any

from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from webhooks import catalogue, payloads
from webhooks.delivery_log import decoded_body, request_preview
from webhooks.delivery_log.request_preview import CannotPreview, Source
from webhooks.filters import compile_filter
from webhooks.models import Webhook
from webhooks.ui.webhook_form.forms import WebhookForm
from webhooks.ui.webhook_form.mapping import MappingSection
from webhooks.ui.webhook_form.unsaved import TrialForm, attempt

# What is shown while no event type is chosen.
_USUAL_TYPE = "call.incoming.after"
_REAL = "real"
# A megabyte of body would make every keystroke slow.
_SHOWN_BYTES = 20_000


@require_POST
@never_cache
@login_required
def preview(request: HttpRequest) -> HttpResponse:
    """Answer htmx with the request the posted form would send; store nothing."""
    webhook = _webhook(request)
    form = TrialForm(request.POST, webhook=webhook, session=request.session)
    if not request.user.has_perm("webhooks.view_connection"):
        form.keep_connection()
    context = {**preview_context(request, form), "is_live": True, "form": form}
    return render(request, "webhooks/webhook_form/_preview.html", context)


@require_POST
@never_cache
@login_required
def edit_parameters(request: HttpRequest) -> HttpResponse:
    """Answer htmx with the rows of the parameters after one of their buttons."""
    _check_editor(request)
    data = request.POST
    section = MappingSection(Webhook(), data)
    if data.get("parameters_quiet"):
        section.focus = ""
    section.check(method=data.get("method", ""), body_format=data.get("body_format", ""))
    return render(request, "webhooks/webhook_form/_parameter_rows.html", {"section": section})


def preview_context(request: HttpRequest, form: WebhookForm) -> dict[str, Any]:
    """Return what the preview panel shows for a form, posted or stored."""
    trial = attempt(form)
    types = catalogue.types_for(form.mapping.event_types) or [_USUAL_TYPE]
    may_see = request.user.has_perm("webhooks.view_payload")
    wanted = request.POST.get("preview_event", "")
    source, note = _source(trial.webhook, types, wanted, may_see=may_see)
    _note_absent(form, source)
    made, problems = None, list(trial.problems)
    try:
        may_sign = request.user.has_perm("webhooks.test_webhook")
        if trial.has_content:
            made = request_preview.build(trial.webhook, source, now=time.time(), is_signed=may_sign)
    except CannotPreview as error:
        problems.append(str(error))
    refusals = compile_filter(form.conditions.usable_tree).explain(source.values())
    return {
        "preview": made,
        "preview_body": decoded_body.read(made.body[:_SHOWN_BYTES]) if made else None,
        "is_cut": bool(made and len(made.body) > _SHOWN_BYTES),
        "shown_bytes": _SHOWN_BYTES,
        "preview_problems": problems,
        "preview_hint": trial.hint,
        "preview_note": note,
        "is_refused": bool(list(refusals)),
        "source": source,
        "wanted": wanted if wanted in types or wanted == _REAL else types[0],
        "sample_types": [catalogue.EVENT_TYPES[key] for key in types],
        "may_see_payload": may_see,
        "max_address_length": request_preview.MAX_ADDRESS_LENGTH,
    }


def _source(
    webhook: Webhook, types: list[str], wanted: str, *, may_see: bool
) -> tuple[Source, str]:
    """Return the event that was asked for, or a sample and why it is one."""
    if wanted == _REAL and may_see:
        if found := request_preview.newest(types):
            return found, ""
        note = _("No such event has happened yet, so this is a sample.")
        return request_preview.sample(webhook, types[0]), note
    return request_preview.sample(webhook, wanted if wanted in types else types[0]), ""


def _note_absent(form: WebhookForm, source: Source) -> None:
    """Say at each row whose variable the shown event does not have what is sent instead."""
    fields = {**source.values(), "attempt": 1}
    is_json = payloads.sent_as(_value(form, "method"), _value(form, "body_format")) == "json"
    for row in form.mapping.rows:
        name = row.value("content").strip()
        if not row.is_variable or not name or row.problems or name == payloads.WHOLE_EVENT:
            continue
        if payloads.finder(name)(fields) is not None:
            continue
        if row.value("default"):
            sentence = _("The event shown has no “%s”; the value set under Options is sent.")
        elif row["is_omitted"].value():
            sentence = _("The event shown has no “%s”, so this is left out.")
        elif is_json:
            sentence = _("The event shown has no “%s”, so null is sent.")
        else:
            sentence = _("The event shown has no “%s”, so an empty text is sent.")
        row.note = sentence % name[:100]


def _value(form: WebhookForm, field: str) -> str:
    return str(form[field].value())


def _webhook(request: HttpRequest) -> Webhook:
    """Return the webhook that is edited, or a new one."""
    pk = request.POST.get("webhook", "")
    _check_editor(request, is_new=not pk)
    if not pk.isdecimal():
        return Webhook()
    return get_object_or_404(Webhook.objects.present().select_related("credential"), pk=pk)


def _check_editor(request: HttpRequest, *, is_new: bool | None = None) -> None:
    user = request.user
    may = {
        True: user.has_perm("webhooks.add_webhook"),
        False: user.has_perm("webhooks.change_webhook"),
    }
    if not (any(may.values()) if is_new is None else may[is_new]):
        raise PermissionDenied
