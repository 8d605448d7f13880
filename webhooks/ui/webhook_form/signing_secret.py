"""Showing the signing secret again: asks for the password first, and the trail says who saw it."""

from django import forms
from django.contrib.auth import authenticate
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from webhooks import audit
from webhooks.models import Action, Webhook
from webhooks.ui.requests import page
from webhooks.ui.webhook_form import context as form_context


class PasswordConfirmation(forms.Form):
    """Ask for the password of who is logged in. A wrong one counts as a failed login."""

    password = forms.CharField(
        label=gettext_lazy("Your password"),
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
    )

    def __init__(self, request: HttpRequest, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self._request = request

    def clean_password(self) -> str:
        password: str = self.cleaned_data["password"]
        name = self._request.user.get_username()
        found = authenticate(request=self._request, username=name, password=password)
        if found is None or found.pk != self._request.user.pk:
            raise forms.ValidationError(_("The password is wrong."))
        return password


@page("webhooks.change_webhook", has_form=True)
def reveal(request: HttpRequest, pk: int) -> HttpResponse:
    webhook = get_object_or_404(Webhook.objects.present(), pk=pk)
    form = PasswordConfirmation(request, request.POST if request.method == "POST" else None)
    if request.method != "POST" or not form.is_valid():
        shown = {"webhook": webhook, "form": form}
        status = 422 if request.method == "POST" else 200
        return render(request, "webhooks/webhook_form/reveal_secret.html", shown, status=status)
    audit.record(Action.SECRET_REVEALED, webhook, user=request.user, fields=["signing_secret"])
    form_context.reveal_signing_secret(request, webhook)
    return redirect(reverse("webhooks:edit", args=[pk]) + "#signing-shown")
