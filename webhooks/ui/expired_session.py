"""Forms whose session expired while they were filled in: their data is kept across the login.

A script requests `session` before it submits a form. When a form is submitted without a login, its
data is kept, encrypted, in the new session until the same user has logged in. Data entered for a
webhook that another user has deleted is kept until the webhook is restored.
"""

from collections.abc import Callable
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
_SHOW_ACTION = "preview"
_PRESSED_ACTION = "pressed"
# Longer than any session lasts or a form stays open.
_MAX_AGE = timedelta(days=7)
_MAX_CHARACTERS = 200_000


@require_safe
@never_cache
def session(request: HttpRequest) -> HttpResponse:
    """Confirm that the session is valid; return the CSRF token, which a login may have changed."""
    return JsonResponse({"csrf": get_token(request)})


def opened_by(request: HttpRequest) -> dict[str, Any]:
    """Provide the signed user id that a form posts to prove who opened it: a context processor."""
    signer = signing.TimestampSigner(salt=_OPENED_BY)
    return {_OPENED_BY: SimpleLazyObject(lambda: signer.sign(str(request.user.pk)))}


def keeps_typed(view: View) -> View:
    """Require a login; afterwards show the form again with the data that was posted without one."""
    sentence = gettext_lazy(
        "Not saved: you had been logged out. What you entered is back. Check it, secrets too, "
        "then try again."
    )
    return _kept_over_login(view, sentence)


def keeps_selection(view: View) -> View:
    """Require a login; afterwards show the row selection that was posted without one."""
    sentence = gettext_lazy(
        "Nothing was done: you had been logged out. Your selection is back. Check it, then "
        "continue."
    )
    return _kept_over_login(view, sentence)


def returns_to_selection(view: View) -> View:
    """Require a login; afterwards the view goes back, by `redirect_back`, to the row selection."""
    sentence = gettext_lazy(
        "Nothing was done: you had been logged out. Make your selection again, then press the "
        "button."
    )
    return _kept_over_login(view, sentence)


def keeps_typed_at(page: Callable[[int], str]) -> Callable[[View], View]:
    """Require a login for a button of a form; keep what it posted without one for that form.

    `page` returns the URL of the form, or "".
    """

    def decorate(view: View) -> View:
        @login_not_required
        @wraps(view)
        def guarded(request: HttpRequest, pk: int) -> HttpResponseBase:
            if request.user.is_authenticated:
                return view(request, pk)
            url = page(pk)
            is_kept = url and keep(request, path=url)
            return redirect_to_login(url if is_kept else request.get_full_path())

        return guarded

    return decorate


def _kept_over_login(view: View, sentence: str | Promise) -> View:
    @login_not_required
    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not request.user.is_authenticated:
            keep(request)
            return redirect_to_login(request.get_full_path())
        if request.method == "GET" and (typed := _take(request, sentence)) is not None:
            # The view treats this as a POST that shows the form and saves nothing.
            request.method, request.POST = "POST", typed  # type: ignore[assignment]
        return view(request, *args, **kwargs)

    return guarded


def keep(request: HttpRequest, *, path: str = "", is_deleted: bool = False) -> bool:
    """Keep a posted form in the session if a logged-in user opened it; return whether it was kept.

    `path` is that of the form, if it is not the request's. `is_deleted`: it is kept until the row
    it edits is restored, not until a login.
    """
    path = path or request.path
    opener_id = _opener_id(request.POST)
    typed = request.POST.urlencode()
    if request.method != "POST" or not opener_id or len(typed) > _MAX_CHARACTERS:
        return False
    if request.FILES:
        # The file has to be chosen again, and such a form holds nothing else.
        return False
    try:
        sealed = seal(typed, _seal_context(opener_id, path)).ciphertext
    except SecretUnreadableError:
        return False
    kept = {"path": path, "typed": sealed, "is_deleted": is_deleted}
    request.session[_SESSION_KEY] = kept
    return True


def _take(request: HttpRequest, sentence: str | Promise) -> QueryDict | None:
    """Pop the unsaved data that this user posted to this URL, and add a message that says why."""
    kept = request.session.get(_SESSION_KEY)
    if not kept or kept["path"] != request.path:
        return None
    del request.session[_SESSION_KEY]
    try:
        typed = Sealed(kept["typed"]).open(_seal_context(str(request.user.pk), request.path))
    except SecretUnreadableError:
        # Kept for another user, or encrypted with another key.
        return None
    data = QueryDict(typed, mutable=True)
    data[_PRESSED_ACTION], data["action"] = data.get("action", ""), _SHOW_ACTION
    if kept.get("is_deleted"):
        sentence = _(
            "Not saved yet: the webhook had been deleted. Check what you entered, secrets too, "
            "then save."
        )
    messages.warning(request, str(sentence))
    return data


def is_shown_again(request: HttpRequest) -> bool:
    """Return whether a posted form is only shown again, not saved."""
    return request.POST.get("action") == _SHOW_ACTION


def pressed(request: HttpRequest) -> str:
    """Return the action of the pressed button, also when the form is only shown again."""
    return request.POST.get(_PRESSED_ACTION if is_shown_again(request) else "action", "")


def _opener_id(data: QueryDict) -> str:
    """Return the id of the user who opened a form; empty without a login or an active account."""
    signer = signing.TimestampSigner(salt=_OPENED_BY)
    try:
        opener_id = signer.unsign(data.get(_OPENED_BY, ""), max_age=_MAX_AGE)
    except signing.BadSignature:
        return ""
    return opener_id if User.objects.filter(pk=opener_id, is_active=True).exists() else ""


def _seal_context(opener_id: str, path: str) -> str:
    return f"typed:{opener_id}:{path}"
