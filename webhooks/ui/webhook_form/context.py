"""The page of the form: what all views that show it share.

Owns the binding of the form to a request, the token panel, the signing secret that is shown once,
and the messages that an authorization leaves for the next page.
"""

from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import Q
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from webhooks import audit, catalogue, events, oauth
from webhooks.delivery import holds
from webhooks.delivery_log import filter_preview
from webhooks.filters import compile_filter, refusal_words
from webhooks.models import (
    Action,
    Credential,
    GrantType,
    OAuthToken,
    TokenState,
    Webhook,
)
from webhooks.security.drafts import Draft
from webhooks.security.encryption import SecretUnreadableError
from webhooks.ui import shared_credentials, status, trail
from webhooks.ui.connections.forms import ConnectionForm
from webhooks.ui.requests import whole_number
from webhooks.ui.webhook_form import oauth_fields, pasted_curl, sections, success
from webhooks.ui.webhook_form.credential_form import CredentialForm
from webhooks.ui.webhook_form.filter import FilterSection
from webhooks.ui.webhook_form.forms import WebhookForm
from webhooks.ui.webhook_form.pasted_curl import Pasted
from webhooks.ui.webhook_form.preview import UnsavedForm, preview_context

EditForm = WebhookForm | ConnectionForm

# Submit buttons that only change what the form shows, or try a part of it.
_RESHAPING = {
    *("change_type", "add_header", "test_mail", "use_preset", "find_endpoints", "preview"),
    *(success.USE_PRESET, success.TRY),
    sections.USE_MY_ADDRESS,
    pasted_curl.ACTION,
}
_RESHAPING_PARTS = ("filter:", "parameter:")
_REVEAL_KEY = "webhook_signing_secrets_to_show"
_FAILURE_KEY = "webhook_authorization_failures"
_SUCCESS_KEY = "webhook_authorization_successes"
# The credential that is authorized from the list of grants; the browser then returns to the list.
_GRANTS_LIST_KEY = "webhook_grants_series"
# The states of the device codes that were shown in a session, by credential.
_DEVICE_KEY = "webhook_device_states"
# These change together, and the audit trail has actions of its own for that.
_PAUSE_FIELDS = {"is_active", "pause_reason", "paused_at"}
# Which events the filter preview lists; the first is the default.
_FILTER_SHOWN = {
    "": gettext_lazy("Count only"),
    "all": gettext_lazy("All"),
    "passed": gettext_lazy("Sent"),
    "refused": gettext_lazy("Not sent"),
}


def is_reshaping(request: HttpRequest) -> bool:
    """Return whether the pressed button only changes or tries the form, without saving it."""
    action = request.POST.get("action", "")
    return action in _RESHAPING or action.startswith(_RESHAPING_PARTS) or "fill" in request.POST


def bind_form(request: HttpRequest, subject: Webhook | Credential, *, seen: str = "") -> EditForm:
    """Return the form of a webhook or a connection, with the posted or the stored values.

    `seen` is `trail.newest_entry` from before the row was read.
    """
    data, pasted = _posted(request) if request.method == "POST" else (None, None)
    is_checked = not is_reshaping(request)
    form: EditForm
    if isinstance(subject, Credential):
        draft = _draft(request, f"connection {subject.pk or 'new'}")
        form = ConnectionForm(data, instance=subject, draft=draft, is_checked=is_checked)
    else:
        draft = _draft(request, str(subject.pk or "new"))
        form = WebhookForm(data, instance=subject, draft=draft, is_checked=is_checked)
        if not request.user.has_perm("webhooks.view_connection"):
            form.keep_connection()
    form.pasted = pasted
    form.seen = trail.seen_entry(request) if request.method == "POST" else seen
    return form


def _draft(request: HttpRequest, form_key: str) -> Draft:
    return Draft(request.session, draft_id=request.POST.get("draft", ""), form_key=form_key)


def check_editor(request: HttpRequest, *any_of: str) -> None:
    """Raise PermissionDenied without one of the permissions; default: add or change webhooks."""
    names = any_of or ("add_webhook", "change_webhook")
    if not any(request.user.has_perm(f"webhooks.{name}") for name in names):
        raise PermissionDenied


def check_may_change(request: HttpRequest, credential: Credential) -> None:
    """Raise PermissionDenied unless the user may edit the form of a credential."""
    if not _may(request, "change", credential):
        raise PermissionDenied


def _may(request: HttpRequest, what: str, credential: Credential) -> bool:
    model = "connection" if credential.is_shared else "webhook"
    return request.user.has_perm(f"webhooks.{what}_{model}")


def save_if_valid(request: HttpRequest, form: CredentialForm) -> bool:
    """Save a valid form that was posted to be saved; return False if it has to be shown.

    Raises Http404 if the row was deleted while the form was validated, which looks up hosts.
    """
    if request.method != "POST" or is_reshaping(request) or not form.is_valid():
        return False
    try:
        is_saved = _save(request, form)
        if is_saved and getattr(form, "is_name_unknown", False):
            sentence = _("Saved as paused: DNS does not know the host of the URL yet.")
            messages.warning(request, sentence)
        return is_saved
    except shared_credentials.ConnectionUnavailableError as error:
        # The connection was deleted after the form was validated.
        form.add_error("connection", str(error))
    except SecretUnreadableError:
        messages.error(request, wrong_key())
    return False


def wrong_key() -> str:
    """Return the error message that secrets cannot be stored under the wrong encryption key."""
    return _(
        "Nothing was saved: the encryption key of this site is not the one that its stored secrets "
        "were encrypted with. Ask its operator to put the right FIELD_ENCRYPTION_KEY back, then "
        "save again; what you typed is still here, except secrets."
    )


def _save(request: HttpRequest, form: CredentialForm) -> bool:
    """Save a valid form and record its changes in the audit trail; False on an edit conflict."""
    subject = form.instance
    with transaction.atomic():
        if subject.pk is None:
            form.save()
            audit.record(Action.CREATED, subject, user=request.user)
            return True
        # Storing a token locks its credential, too: it sees either none or all of these changes.
        present = type(subject).objects.present()
        locked = get_object_or_404(present.select_for_update(of=("self",)), pk=subject.pk)
        list(Credential.objects.select_for_update().filter(pk=form.credential.pk).values_list("pk"))
        before = audit.snapshot(locked)
        form.conflicts = trail.edit_conflicts(subject, form.seen)
        if form.conflicts:
            # The next save may overwrite the conflicts that are now shown.
            form.seen = trail.newest_entry(type(subject), subject.pk)
            return False
        form.save()
        note = audit.note("held_dropped") if getattr(form, "cancels_held", False) else ""
        record_changes(request, subject, before, note=note)
    return True


def record_changes(
    request: HttpRequest, subject: Webhook | Credential, before: dict[str, Any], *, note: str = ""
) -> None:
    """Record what differs between an earlier snapshot of a row and the stored row.

    `note` says what happened to deliveries on hold when the webhook became active.
    """
    after = type(subject).objects.get(pk=subject.pk)
    changed = set(audit.changed_fields(before, after))
    if "is_active" in changed and isinstance(after, Webhook):
        action = Action.RESUMED if after.is_active else Action.PAUSED
        audit.record(action, after, user=request.user, note=note if after.is_active else "")
    if fields := changed - _PAUSE_FIELDS:
        audit.record(Action.CHANGED, after, user=request.user, fields=fields)


def show_form(request: HttpRequest, form: EditForm, **more: Any) -> HttpResponse:
    """Render the form with the panels beside it; a connection has none that send requests."""
    subject = form.instance
    context: dict[str, Any] = {
        "form": form,
        "is_new": subject.pk is None,
        "name": form.initial.get("name", ""),
        **token_panel(request, form.credential, is_oauth=form.chosen_type == "oauth2"),
    }
    form.mark(_fields_of_failure(context))
    # `form_url` is not the URL of the request, which may be that of Get new access token.
    if isinstance(form, ConnectionForm):
        context |= {
            "connection": subject,
            "is_connection": True,
            "form_url": form_url(subject) if subject.pk else reverse("webhooks:connection_create"),
            "users": shared_credentials.users_of(subject) if subject.pk else [],
        }
        return render(request, "webhooks/connections/form.html", context)
    context |= {
        "webhook": subject,
        "connection": form.chosen_connection,
        "form_url": reverse("webhooks:edit", args=[subject.pk])
        if subject.pk
        else reverse("webhooks:create"),
        "test_types": [(group.label, group.types) for group in catalogue.groups()],
        # A failure comes first: the signing secret, shown once, waits for a page without one.
        **({} if context["token_failure"] else signing_panel(request, subject)),
        **_filter_preview(request, form),
        **_preview(request, form),
        **_success_preview(request, form),
        # A rejected command stays in its field, to be corrected.
        "pasted": form.pasted,
        "curl": form.data.get("curl", ""),
        **more,
    }
    return render(request, "webhooks/webhook_form/form.html", context)


def _fields_of_failure(panel: dict[str, Any]) -> tuple[str, ...]:
    """Return the fields that the failure in the token panel is about."""
    token, credential = panel["token"], panel["credential"]
    has_failed = panel["token_failure"] or (token and token.last_error)
    diagnosis = oauth.diagnose(credential) if has_failed and credential.pk else None
    return tuple(diagnosis.fields) if diagnosis and diagnosis.exchange else ()


def _filter_preview(request: HttpRequest, form: WebhookForm) -> dict[str, Any]:
    """Try the filter if one of its buttons was pressed; with JavaScript the page requests it."""
    if not request.POST.get("action", "").startswith("filter:"):
        return {}
    form.conditions.show_mistakes()
    return filter_preview_context(request, form.conditions)


def _success_preview(request: HttpRequest, form: WebhookForm) -> dict[str, Any]:
    """Apply the success rule to the last response if one of its buttons was pressed."""
    if request.POST.get("action") not in (success.USE_PRESET, success.TRY):
        return {}
    may_see = request.user.has_perm("webhooks.view_payload")
    return {"success_preview": success.preview(form.data, form.instance.pk, may_see=may_see)}


def _preview(request: HttpRequest, form: WebhookForm) -> dict[str, Any]:
    """Return the context of the request preview, of the stored or the posted form."""
    if not form.is_bound:
        return preview_context(request, form)
    posted = UnsavedForm(form.data, webhook=form.instance, session=request.session)
    context = preview_context(request, posted)
    form.mapping.show_notes(posted.mapping)
    return context


def filter_preview_context(request: HttpRequest, section: FilterSection) -> dict[str, Any]:
    """Try a valid filter, on real events only for users who may see payloads."""
    if section.is_wrong:
        # The counts would be those of another filter.
        return {}
    may_see = request.user.has_perm("webhooks.view_payload")
    compiled = compile_filter(section.usable_tree)
    found = filter_preview.preview(compiled, section.types, may_see_payload=may_see)
    wanted = request.POST.get("filter-shown", "")
    rows = [
        {"event": one, "reason": refusal_words(one["refusals"])}
        for one in found["events"]
        if wanted and wanted in ("all", "passed" if one["passes"] else "refused")
    ]
    return {
        "filter_preview": found,
        "rows": rows,
        "may_see_payload": may_see,
        "shown": wanted if wanted in _FILTER_SHOWN else "",
        "shown_choices": _FILTER_SHOWN.items(),
    }


def token_panel(
    request: HttpRequest, credential: Credential, *, is_oauth: bool = True
) -> dict[str, Any]:
    """Return the panel's context; the messages that the callback left are shown only once."""
    is_saved = credential.pk is not None
    tokens = OAuthToken.objects.select_related("granted_by")
    token = tokens.filter(credential=credential).first() if is_saved else None
    # Not those that wait for a resume: a token does not send them.
    held = holds.waiting_for(credential).count_to(status.MAX_COUNTED) if is_saved else 0
    success = _pop_from_session(request, _SUCCESS_KEY, credential)
    is_usable = token is not None and token.has_access_token()
    return {
        "credential": credential,
        "token_name": credential.token_name or (credential.subject.name if is_saved else ""),
        "token": token,
        "token_state": token.state if token else TokenState.NONE,
        "token_failure": _pop_from_session(request, _FAILURE_KEY, credential),
        "token_success": success,
        # The next step after a new token is a test; a connection cannot send one.
        "offers_test": bool(success) and is_usable and not credential.is_shared,
        "held_count": held,
        "held_text": status.capped_count(held),
        "is_oauth": is_oauth,
        "drops_token": is_usable or (token is not None and token.has_refresh_token()),
        "has_replaced_secret": token is not None and token.has_replaced_secret(),
        "now": timezone.now(),
        **status.token_facts(credential, token),
    }


def signing_panel(request: HttpRequest, webhook: Webhook) -> dict[str, Any]:
    """Return the signing secret, once after it was made or revealed, and the end of old ones."""
    return {
        "shown_secret": webhook.signing_secret
        if _pop_from_session(request, _REVEAL_KEY, webhook)
        else "",
        "previous_secret_until": webhook.rotation_ends_at,
    }


def reveal_signing_secret(request: HttpRequest, webhook: Webhook) -> None:
    """Let the next page of this session show the secret; the session does not store it."""
    _keep_in_session(request, _REVEAL_KEY, webhook, "yes")


def begin_series(request: HttpRequest, credential: Credential) -> None:
    """Remember whether a token was requested from the list of grants."""
    request.session[_GRANTS_LIST_KEY] = credential.pk if "series" in request.POST else None


def after_grant(request: HttpRequest, credential: Credential) -> str:
    """Return the URL to go to with a new token: the list of grants, or the token panel."""
    if request.session.pop(_GRANTS_LIST_KEY, None) == credential.pk:
        sentence = _("“%s” is authorized.") % credential.subject.name
        messages.success(request, sentence)
        return reverse("webhooks:grants")
    return panel_url(request, credential)


def device_state(request: HttpRequest, credential: Credential) -> str:
    """Return the state of the credential's device code last shown in this session, or ""."""
    return str(request.session.get(_DEVICE_KEY, {}).get(str(credential.pk), ""))


def _shows_device_code(request: HttpRequest, credential: Credential) -> bool:
    """Return whether a page of this session waits for a code, which another one would replace."""
    try:
        oauth.pending_device(device_state(request, credential), **bound_to(request))
    except oauth.AuthorizationError:
        return False
    return True


def keep_message(
    request: HttpRequest, credential: Credential, *, success: str = "", failure: str = ""
) -> None:
    """Keep a message for the next token panel of this session: what was done, or what failed.

    It is on the next page of a user who may not open the form with the panel.
    """
    if not _may(request, "change", credential):
        for add, sentence in ((messages.success, success), (messages.error, failure)):
            if sentence:
                add(request, sentence)
        return
    for key, sentence in ((_SUCCESS_KEY, success), (_FAILURE_KEY, failure)):
        if sentence:
            _keep_in_session(request, key, credential, sentence)


def to_panel(
    request: HttpRequest, credential: Credential, *, success: str = "", failure: str = ""
) -> HttpResponseRedirect:
    keep_message(request, credential, success=success, failure=failure)
    return HttpResponseRedirect(panel_url(request, credential), status=303)


def form_url(credential: Credential) -> str:
    """Return the URL of the form on which a credential is edited."""
    name = "webhooks:connection_edit" if credential.is_shared else "webhooks:edit"
    return reverse(name, args=[credential.subject.pk])


def page_url(request: HttpRequest, credential: Credential) -> str:
    """Return the URL of the form, or of the best page that a user without its permission may open.

    Without any, it is the list of grants, which is open to those who may authorize.
    """
    if _may(request, "change", credential):
        return form_url(credential)
    if _may(request, "view", credential):
        name = "webhooks:connection" if credential.is_shared else "webhooks:detail"
        return reverse(name, args=[credential.subject.pk])
    return reverse("webhooks:grants")


def panel_url(request: HttpRequest, credential: Credential) -> str:
    """Return the URL of the token panel, or of the page's top when a secret is shown there."""
    url = page_url(request, credential)
    if not _may(request, "change", credential):
        return url
    webhook = credential.webhook
    is_revealing = webhook and str(webhook.pk) in request.session.get(_REVEAL_KEY, {})
    has_failed = str(credential.pk) in request.session.get(_FAILURE_KEY, {})
    return url if is_revealing and not has_failed else url + "#token"


def begin_authorization(request: HttpRequest, credential: Credential) -> HttpResponse:
    """Redirect to the provider, or back to the panel with a message that says what to change.

    Grants that no user approves need no redirect: their token is fetched at once.
    """
    if not credential.is_oauth:
        # The panel is hidden.
        sentence = _("Choose OAuth 2.0 as the authorization type to get an access token.")
        messages.warning(request, sentence)
        return HttpResponseRedirect(page_url(request, credential) + "#authorization", status=303)
    if credential.is_machine:
        return _fetch_token(request, credential)
    try:
        if credential.grant_type == GrantType.DEVICE_CODE:
            if not _shows_device_code(request, credential):
                state = oauth.begin_device_authorization(credential, **bound_to(request))
                _keep_in_session(request, _DEVICE_KEY, credential, state)
            url = reverse("webhooks:device", args=[credential.pk])
        else:
            url = oauth.begin_authorization(credential, **bound_to(request))
    except (oauth.AuthorizationError, SecretUnreadableError) as error:
        return to_panel(request, credential, failure=str(error))
    return HttpResponseRedirect(url, status=303)


def bound_to(request: HttpRequest) -> dict[str, Any]:
    """Return the user and the session that an authorization is bound to."""
    return {"user": request.user, "session_key": request.session.session_key or ""}


def authorized(request: HttpRequest, credential: Credential) -> str:
    """Record who got a token, release deliveries held for it, and return a message about both."""
    audit.record(Action.AUTHORIZED, credential, user=request.user)
    sentence = _("The access token was stored.")
    released = events.release_held(credential)
    users = Webhook.objects.active().filter(Q(credential=credential) | Q(own_credential=credential))
    if not released or not users.exists():
        # At a paused webhook they wait for its resume.
        return sentence
    sending = ngettext(
        "%(count)d delivery that waited for it is being sent.",
        "%(count)d deliveries that waited for it are being sent.",
        released,
    )
    return f"{sentence} {sending % {'count': released}}"


def _fetch_token(request: HttpRequest, credential: Credential) -> HttpResponse:
    try:
        oauth.refresh(credential)
    except oauth.TokenUnavailableError as error:
        return to_panel(request, credential, failure=str(error))
    return to_panel(request, credential, success=authorized(request, credential))


def _posted(request: HttpRequest) -> tuple[QueryDict, Pasted | None]:
    """Return the posted data with what its button fills in, and the result of a paste."""
    data = request.POST.copy()
    pasted = None
    rows = data.get("headers-TOTAL_FORMS", "")
    if data.get("action") == "add_header" and rows.isdecimal():
        data["headers-TOTAL_FORMS"] = str(whole_number(rows) + 1)
    if data.get("action") == pasted_curl.ACTION:
        pasted = pasted_curl.fill_in(data)
    if data.get("action") == "use_preset" or "fill" in data:
        oauth_fields.fill_in(data)
    if data.get("action") == success.USE_PRESET:
        success.fill_in(data)
    if data.get("action") == sections.USE_MY_ADDRESS:
        sections.add_recipient(data, getattr(request.user, "email", ""))
    return data, pasted


def _keep_in_session(request: HttpRequest, key: str, row: Webhook | Credential, value: str) -> None:
    request.session[key] = {**request.session.get(key, {}), str(row.pk): value}


def _pop_from_session(request: HttpRequest, key: str, row: Webhook | Credential) -> str:
    left = dict(request.session.get(key, {}))
    value: str = left.pop(str(row.pk), "")
    if value:
        request.session[key] = left
    return value
