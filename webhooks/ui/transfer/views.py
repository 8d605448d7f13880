"""Export webhooks to a JSON file, import such a file, and revert a webhook to an earlier version.

Import and revert show a preview first, and use the form that people use.
"""

from functools import partial
from typing import Any

from django.contrib import messages
from django.core import signing
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from webhooks import audit
from webhooks.models import Action, Webhook, WebhookVersion
from webhooks.security.encryption import Sealed, SecretUnreadableError, seal
from webhooks.ui.expired_session import is_shown_again, keeps_typed, returns_to_selection
from webhooks.ui.requests import button, page, redirect_back
from webhooks.ui.shared_credentials import ConnectionUnavailableError
from webhooks.ui.transfer import document, plans
from webhooks.ui.transfer.document import FileError
from webhooks.ui.transfer.plans import Change, ImportPlan, PlannedEntry
from webhooks.ui.webhook_form import context as form_context
from webhooks.ui.webhook_query import chosen_ids

# A preview carries the file to the import: signed, so that it is unchanged, and encrypted, because
# its headers may contain secrets.
_SALT = "webhooks.import"
_PLACE = "import.plan:"
# How long a preview is valid.
_SECONDS = 3600
_RESULT_KEY = "webhook_import_result"


@returns_to_selection
@button("webhooks.view_webhook", "webhooks.change_webhook")
def export(request: HttpRequest) -> HttpResponse:
    """Export the chosen webhooks. Needs the form's permissions, since it contains the same."""
    if is_shown_again(request):
        return redirect_back(request, "webhooks:list")
    ids = chosen_ids(request.POST)
    found = Webhook.objects.present().filter(pk__in=ids).select_related("credential")
    # One more than an import reads.
    webhooks = list(found.order_by("name", "pk")[: document.MAX_WEBHOOKS + 1])
    if not webhooks:
        messages.info(request, _("Select webhooks first, then export them."))
        return redirect_back(request, "webhooks:list")
    answer = JsonResponse(
        document.document(webhooks), json_dumps_params={"indent": 2, "ensure_ascii": False}
    )
    if len(webhooks) > document.MAX_WEBHOOKS or len(answer.content) > document.MAX_BYTES:
        sentence = _(
            "Nothing was exported: an import reads at most %(count)d webhooks and %(size)d MB. "
            "Filter the list or select fewer webhooks, and export several files."
        )
        limits = {"count": document.MAX_WEBHOOKS, "size": document.MAX_BYTES // 1024**2}
        messages.error(request, sentence % limits)
        return redirect_back(request, "webhooks:list")
    audit.record_many(Action.EXPORTED, webhooks, user=request.user)
    name = f"webhooks-{timezone.localdate():%Y-%m-%d}.json"
    answer["Content-Disposition"] = f'attachment; filename="{name}"'
    return answer


@page("webhooks.view_webhook", has_form=True, guard=keeps_typed)
def import_webhooks(request: HttpRequest) -> HttpResponse:
    """Show the upload form, then a preview, then import."""
    if not any(map(request.user.has_perm, ("webhooks.add_webhook", "webhooks.change_webhook"))):
        raise PermissionDenied
    if request.method != "POST":
        result = request.session.pop(_RESULT_KEY, None)
        return _form(request, {"result": result, "is_paused": True})
    is_paused = bool(request.POST.get("is_paused"))
    typed = {"text": request.POST.get("text", ""), "is_paused": is_paused}
    if is_shown_again(request) and "plan" not in request.POST:
        return _form(request, typed)
    try:
        if "plan" in request.POST:
            return _import(request)
        entries = document.read(_content(request))
        return _preview(request, entries, is_paused=is_paused)
    except FileError as error:
        sentence = str(error)
    except SecretUnreadableError:
        sentence = form_context.wrong_key()
    return _form(
        request, {"error": sentence, "wrong": _field_with_error(request), **typed}, status=422
    )


def _form(request: HttpRequest, context: dict[str, Any], *, status: int = 200) -> HttpResponse:
    return render(request, "webhooks/transfer/import.html", context, status=status)


def _field_with_error(request: HttpRequest) -> str:
    """Return the field that an error belongs to; empty if it belongs to a preview."""
    if "plan" in request.POST:
        return ""
    is_typed = "file" not in request.FILES and request.POST.get("text", "").strip()
    return "text" if is_typed else "file"


def _content(request: HttpRequest) -> bytes:
    if (file := request.FILES.get("file")) is not None:
        document.check_size(file.size or 0)
        content: bytes = file.read()
        return content
    text = request.POST.get("text", "")
    if not text.strip():
        raise FileError(_("Choose a file or paste its content."))
    return text.encode()


def _plan(request: HttpRequest, entries: list[Any], *, is_paused: bool) -> ImportPlan:
    return plans.make_plan(entries, may=request.user.has_perm, is_paused=is_paused)


def _preview(
    request: HttpRequest,
    entries: list[Any],
    *,
    is_paused: bool,
    selected: set[int] | None = None,
    status: int = 200,
) -> HttpResponse:
    """Show what an import would do; at first every entry that it can do is selected."""
    plan = _plan(request, entries, is_paused=is_paused)
    held = {"entries": entries, "is_paused": is_paused}
    context = {
        "plan": plan,
        "shown": [item for item in plan.items if item.kind != Change.SAME],
        # Listed separately: most entries in a file of a whole site.
        "unchanged": plan.of(Change.SAME),
        "counts": [(kind.value, len(plan.of(kind))) for kind in Change],
        "is_paused": is_paused,
        "selected": {item.number for item in plan.doable} if selected is None else selected,
        "signed": seal(signing.dumps(held, salt=_SALT, compress=True), _PLACE).ciphertext,
    }
    return render(request, "webhooks/transfer/preview.html", context, status=status)


def _import(request: HttpRequest) -> HttpResponse:
    """Carry out the preview for all selected entries, or for none."""
    try:
        opened = Sealed(request.POST["plan"]).open(_PLACE)
        held = signing.loads(opened, salt=_SALT, max_age=_SECONDS)
    except (signing.BadSignature, SecretUnreadableError):
        sentence = _("This preview has expired. Choose the file again.")
        return _form(request, {"error": sentence, "is_paused": True}, status=422)
    ticked = set(request.POST.getlist("entry"))
    numbers = {one for one in range(len(held["entries"])) if str(one) in ticked}
    show = partial(
        _preview, request, held["entries"], is_paused=held["is_paused"], selected=numbers
    )
    if is_shown_again(request):
        return show()
    plan = _plan(request, held["entries"], is_paused=held["is_paused"])
    try:
        done = _carry_out(request, plan, numbers)
    except DatabaseError:
        sentence = _("The database refused the import. Nothing was saved. Try again.")
    except (FileError, ConnectionUnavailableError) as error:
        sentence = str(error)
    else:
        messages.success(request, _sentence(done))
        page = "edit" if request.user.has_perm("webhooks.change_webhook") else "detail"
        request.session[_RESULT_KEY] = _result(plan, done, page)
        return redirect("webhooks:import")
    messages.error(request, sentence)
    return show(status=409)


def _carry_out(request: HttpRequest, plan: ImportPlan, numbers: set[int]) -> list[PlannedEntry]:
    if numbers - {item.number for item in plan.doable}:
        raise FileError(
            _("Something changed in the meantime. Nothing was imported. Review the import again.")
        )
    if not numbers:
        raise FileError(_("Nothing was imported. Select at least one webhook."))
    done = plans.carry_out(plan, numbers, created_by_id=request.user.pk)
    webhooks = [item.webhook for item in done if item.webhook]
    audit.record_many(Action.IMPORTED, webhooks, user=request.user)
    return done


def _sentence(done: list[PlannedEntry]) -> str:
    created = sum(item.kind == Change.CREATE for item in done)
    changed = len(done) - created
    parts = []
    if created:
        parts.append(
            ngettext("%d webhook was created.", "%d webhooks were created.", created) % created
        )
    if changed:
        parts.append(
            ngettext("%d webhook was changed.", "%d webhooks were changed.", changed) % changed
        )
    return " ".join(parts)


def _result(plan: ImportPlan, done: list[PlannedEntry], page: str) -> dict[str, Any]:
    """Return the data for the page after the import, without secrets; `page` is linked."""
    numbers = {item.number for item in done}
    skipped = [item for item in plan.items if item.number not in numbers]
    return {
        "done": [_facts(item, page) for item in done],
        "skipped": [
            {"name": one.name, "kind": one.kind.value, "errors": one.errors} for one in skipped
        ],
    }


def _facts(item: PlannedEntry, page: str) -> dict[str, Any]:
    assert item.webhook is not None
    url = reverse(f"webhooks:{page}", args=[item.webhook.pk])
    return {
        "name": item.webhook.name,
        "url": url,
        "kind": item.kind.value,
        "missing": item.missing,
        "missing_url": f"{url}#{document.section_of(item.missing)}" if page == "edit" else url,
        "is_active": item.webhook.is_active,
    }


# ---- Going back to an earlier version ----------------------------------------------------------


@page("webhooks.view_webhook", "webhooks.change_webhook", has_form=True)
def revert(request: HttpRequest, pk: int, entry: int) -> HttpResponse:
    """Show what an earlier version would change, then change it; secrets stay unchanged."""
    versions = WebhookVersion.objects.select_related("webhook__credential", "entry")
    version = get_object_or_404(versions, pk=entry, webhook=pk, webhook__deleted_at=None)
    webhook = version.webhook
    try:
        [item] = _plan(request, [audit.settings_of(version)], is_paused=False).items
    except SecretUnreadableError:
        messages.error(request, form_context.wrong_key())
        return redirect("webhooks:audit", pk)
    if request.method != "POST" or item.kind != Change.CHANGE:
        context = {"webhook": webhook, "entry": version.entry, "item": item}
        return render(request, "webhooks/transfer/revert.html", context)
    before = audit.snapshot(webhook)
    note = f"{version.entry.at:%Y-%m-%d %H:%M} UTC"
    try:
        with transaction.atomic():
            plans.carry_out(ImportPlan(items=[item]), [item.number], created_by_id=None)
            after = Webhook.objects.get(pk=pk)
            fields = audit.changed_fields(before, after)
            audit.record(Action.REVERTED, after, user=request.user, fields=fields, note=note)
    except ConnectionUnavailableError as error:
        messages.error(request, str(error))
        return redirect("webhooks:audit", pk)
    messages.success(request, _("“%s” has its earlier settings again.") % after)
    return redirect("webhooks:detail", pk)
