"""API keys: created, shown once and revoked here. Only a hash is stored, and it is never shown."""

import json
import secrets
import shlex
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.cache import add_never_cache_headers
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.http import require_POST

from webhooks import audit
from webhooks.admin.readonly import ModelAdmin
from webhooks.models import Action, ApiKey, ApiScope
from webhooks.templatetags.interface import ago

# Session key with the id of the last submitted form, which creates no second key when sent again.
_ISSUED_BY = "api_key_form"


class _IssueForm(forms.ModelForm):  # type: ignore[type-arg]
    scopes = forms.MultipleChoiceField(
        label=gettext_lazy("May"),
        choices=ApiScope.choices,
        initial=[ApiScope.EVENTS_WRITE],
        widget=forms.CheckboxSelectMultiple,
        error_messages={"required": gettext_lazy("Choose what the key may do.")},
    )
    form_id = forms.CharField(
        required=False, initial=secrets.token_urlsafe, widget=forms.HiddenInput
    )


class ApiKeyAdmin(ModelAdmin):
    form = _IssueForm
    list_display = ("name", "state", "begins", "may", "created", "creator", "last_used")
    list_select_related = ("created_by",)
    search_fields = ("name", "prefix")
    actions = ("revoke_chosen",)
    show_facets = admin.ShowFacets.NEVER
    fields = ("name", "begins", "may", "state", "created", "creator", "last_used")
    readonly_fields = ("begins", "may", "state", "created", "creator", "last_used")

    def get_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        return ("name", "scopes", "form_id") if obj is None else super().get_fields(request, obj)

    def has_change_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        # A revoked key is kept as a record.
        return False

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("webhooks.change_apikey")

    @admin.display(description=gettext_lazy("Starts with"))
    def begins(self, key: ApiKey) -> SafeString:
        return format_html('<span class="mono small">{}…</span>', key.prefix)

    @admin.display(description=gettext_lazy("May"), empty_value="–")
    def may(self, key: ApiKey) -> str:
        labels = {value: str(label) for value, label in ApiScope.choices}
        return ", ".join(labels.get(scope, scope) for scope in key.scopes)

    @admin.display(description=gettext_lazy("Status"))
    def state(self, key: ApiKey) -> SafeString:
        if key.revoked_at:
            return format_html(
                '<span class="badge has-dot is-neutral">{}</span> {}',
                _("Revoked"),
                ago(key.revoked_at),
            )
        return format_html('<span class="badge has-dot is-success">{}</span>', _("Active"))

    @admin.display(description=gettext_lazy("Created"))
    def created(self, key: ApiKey) -> SafeString | str:
        return ago(key.created_at)

    @admin.display(description=gettext_lazy("Created by"), empty_value="–")
    def creator(self, key: ApiKey) -> str:
        return key.created_by.get_username() if key.created_by else ""

    @admin.display(description=gettext_lazy("Last used"))
    def last_used(self, key: ApiKey) -> SafeString | str:
        return ago(key.last_used_at) or _("Never")

    # Creating a key

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Create a key only once, even if the page that shows it is reloaded."""
        form_id = request.POST.get("form_id")
        if form_id and request.session.get(_ISSUED_BY) == form_id:
            text = _(
                "The key was created and is not shown again. If you do not have it, revoke it "
                "and create another."
            )
            messages.warning(request, text)
            return HttpResponseRedirect(self._way_out(request))
        return super().add_view(request, form_url, extra_context)

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        assert request.user.is_authenticated
        issued, plain = ApiKey.objects.issue(
            obj.name, created_by=request.user, scopes=form.cleaned_data["scopes"]
        )
        audit.record(Action.KEY_ISSUED, issued, user=request.user)
        obj.__dict__.update(issued.__dict__)
        # Kept in memory for the response to this request only.
        obj.plain = plain  # type: ignore[attr-defined]

    def response_add(
        self, request: HttpRequest, obj: ApiKey, post_url_continue: str | None = None
    ) -> HttpResponse:
        """Show the key in the response to the form, so that no session, cookie or log holds it."""
        request.session[_ISSUED_BY] = request.POST.get("form_id")
        plain = obj.plain  # type: ignore[attr-defined]
        url = settings.PUBLIC_URL + reverse("webhooks:api_events")
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": _("The new API key"),
            "key": obj,
            "plain": plain,
            "may_send_events": ApiScope.EVENTS_WRITE in obj.scopes,
            "url": url,
            "command": _first_event(url, plain),
            "way_out": self._way_out(request),
        }
        page = TemplateResponse(request, "admin/webhooks/apikey/issued.html", context)
        add_never_cache_headers(page)
        return page

    def _way_out(self, request: HttpRequest) -> str:
        """Return the URL of the list, or of the index for those who may only create keys."""
        may_view = self.has_view_permission(request)
        return reverse("admin:webhooks_apikey_changelist" if may_view else "admin:index")

    # Revoking keys

    def get_urls(self) -> list[URLPattern]:
        revoke = path(
            "<row:pk>/revoke/",
            self.admin_site.admin_view(require_POST(self.revoke_view)),
            name="webhooks_apikey_revoke",
        )
        return [revoke, *super().get_urls()]

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        context["may_revoke"] = self.has_revoke_permission(request)
        # The response to the form is the only page that shows the key.
        context["show_save_and_add_another"] = context["show_save_and_continue"] = False
        return super().render_change_form(request, context, *args, **kwargs)

    def revoke_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        if not self.has_revoke_permission(request):
            raise PermissionDenied
        key = get_object_or_404(ApiKey, pk=pk)
        self._revoke(request, ApiKey.objects.filter(pk=key.pk))
        return HttpResponseRedirect(reverse("admin:webhooks_apikey_changelist"))

    @admin.action(description=gettext_lazy("Revoke"), permissions=["revoke"])
    def revoke_chosen(self, request: HttpRequest, chosen: QuerySet[ApiKey]) -> None:
        self._revoke(request, chosen)

    def _revoke(self, request: HttpRequest, keys: QuerySet[ApiKey]) -> None:
        revoked = list(keys.filter(revoked_at=None))
        for key in revoked:
            self.log_change(request, key, "Revoked.")
        with transaction.atomic():
            count = keys.filter(revoked_at=None).update(revoked_at=timezone.now())
            audit.record_many(Action.KEY_REVOKED, revoked, user=request.user)
        text = ngettext("%d key is revoked.", "%d keys are revoked.", count)
        messages.success(request, text % count)


def _first_event(url: str, plain: str) -> str:
    """Return a shell command that publishes a sample call event with the key."""
    payload = {"call_id": "c-1", "caller_number": "380441234567", "disposition": "answered"}
    event = json.dumps({"type": "call.incoming.after", "payload": payload})
    lines = [
        f"curl {shlex.quote(url)}",
        f"-H 'Authorization: Bearer {plain}'",
        "-H 'Content-Type: application/json'",
        f"-d {shlex.quote(event)}",
    ]
    return " \\\n  ".join(lines)
