"""Forms whose session ended while they were filled in: asked before a save, and kept over a login.

A script asks `session` before it lets the page go. Without one, what was typed or chosen waits,
sealed, in the new session until the same person has logged in. What was typed into a webhook that
another person had deleted waits until it is restored.
"""

from datetime import timedelta
from functools import wraps
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.models import User
from django.contrib.auth.views import redirect_to_login
from django.core import signing
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse, QueryDict
from django.middleware.csrf import get_token
from django.utils.functional import Promise, SimpleLazyObject
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from webhooks.security.encryption import Sealed, SecretUnreadableError, seal
from webhooks.ui.requests import View

_SESSION_KEY = "webhook_typed"
_OPENED_BY = "opened_by"
_SHOW = "preview"
_PRESSED = "pressed"
# Longer than any session lasts, and than anybody leaves a form open.
_MAX_AGE = timedelta(days=7)
_MAX_CHARACTERS = 200_000


@require_safe
@never_cache
def session(request: HttpRequest) -> HttpResponse:
    """Confirm that the session lives, with the CSRF token that a login may have changed."""
    return JsonResponse({"csrf": get_token(request)})


def opened_by(request: HttpRequest) -> dict[str, Any]:
    """Let the form of any page carry what proves later who opened it: a context processor."""
    signer = signing.TimestampSigner(salt=_OPENED_BY)
    return {_OPENED_BY: SimpleLazyObject(lambda: signer.sign(str(request.user.pk)))}


def keeps_typed(view: View) -> View:
    """Require a login, and show what was posted without one after it."""
    sentence = gettext_lazy(
        "Not saved: you had been logged out. What you entered is back. Check it, secrets too, "
        "then try again."
    )
    return _keeps(view, sentence)


def keeps_selection(view: View) -> View:
    """Require a login, and show which rows were chosen without one after it."""
    sentence = gettext_lazy(
        "Nothing was done: you had been logged out. Your selection is back. Check it, then "
        "continue."
    )
    return _keeps(view, sentence)


def keeps_way_back(view: View) -> View:
    """Require a login; after it `way_back` leads to where rows were chosen without one."""
    sentence = gettext_lazy(
        "Nothing was done: you had been logged out. Make your selection again, then press the "
        "button."
    )
    return _keeps(view, sentence)


def _keeps(view: View, sentence: str | Promise) -> View:
    @login_not_required
    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not request.user.is_authenticated:
            keep(request)
            return redirect_to_login(request.get_full_path())
        if request.method == "GET" and (typed := _take(request, sentence)) is not None:
            # From here on it is a form that was posted to be shown, not to be saved.
            request.method, request.POST = "POST", typed  # type: ignore[assignment]
        return view(request, *args, **kwargs)

    return guarded


def keep(request: HttpRequest, *, is_deleted: bool = False) -> bool:
    """Keep a form that somebody logged in had opened; what anybody else sends takes no room.

    `is_deleted`: it waits for what it edits to be restored, not for a login.
    """
    owner = _owner(request.POST)
    typed = request.POST.urlencode()
    if request.method != "POST" or not owner or len(typed) > _MAX_CHARACTERS:
        return False
    if request.FILES:
        # It has to be chosen again, and that is all that was typed.
        return False
    try:
        sealed = seal(typed, _place(owner, request.path)).ciphertext
    except SecretUnreadableError:
        return False
    kept = {"path": request.path, "typed": sealed, "is_deleted": is_deleted}
    request.session[_SESSION_KEY] = kept
    return True


def _take(request: HttpRequest, sentence: str | Promise) -> QueryDict | None:
    """Return what this person posted here and was not saved, once, with a message that says why."""
    kept = request.session.get(_SESSION_KEY)
    if not kept or kept["path"] != request.path:
        return None
    del request.session[_SESSION_KEY]
    try:
        typed = Sealed(kept["typed"]).open(_place(str(request.user.pk), request.path))
    except SecretUnreadableError:
        # Another person's, or sealed under another key.
        return None
    data = QueryDict(typed, mutable=True)
    data[_PRESSED], data["action"] = data.get("action", ""), _SHOW
    if kept.get("is_deleted"):
        sentence = _(
            "Not saved yet: the webhook had been deleted. Check what you entered, secrets too, "
            "then save."
        )
    messages.warning(request, str(sentence))
    return data


def is_shown_again(request: HttpRequest) -> bool:
    """Return whether a posted form is to be shown, not to be saved."""
    return request.POST.get("action") == _SHOW


def pressed(request: HttpRequest) -> str:
    """Return the action of the button that was pressed, also while the form is shown again."""
    return request.POST.get(_PRESSED if is_shown_again(request) else "action", "")


def _owner(data: QueryDict) -> str:
    """Return the key of who opened a form; empty without a login or if the account is closed."""
    signer = signing.TimestampSigner(salt=_OPENED_BY)
    try:
        owner = signer.unsign(data.get(_OPENED_BY, ""), max_age=_MAX_AGE)
    except signing.BadSignature:
        return ""
    return owner if User.objects.filter(pk=owner, is_active=True).exists() else ""


def _place(owner: str, path: str) -> str:
    return f"typed:{owner}:{path}"
