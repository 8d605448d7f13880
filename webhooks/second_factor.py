"""The place for a second factor: a function of the operator's decides who still owes one.

Which factor that is, and its pages, are the operator's: docs/operations.md shows django-otp. Asks
for every page of somebody logged in; the API knows keys and no logins, and static files nobody.
"""

from collections.abc import Callable

from django.conf import settings
from django.core.exceptions import MiddlewareNotUsed
from django.http import HttpRequest, HttpResponseBase
from django.urls import reverse
from django.utils.module_loading import import_string

# Returns the answer for somebody who has not proved it yet, and None for everybody else.
Check = Callable[[HttpRequest], HttpResponseBase | None]


class SecondFactor:
    """Answer with what SECOND_FACTOR_CHECK returns, until it returns None."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        if not settings.SECOND_FACTOR_CHECK:
            raise MiddlewareNotUsed
        self._get_response = get_response
        self._check: Check = import_string(settings.SECOND_FACTOR_CHECK)

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        # Whoever cannot prove it can still leave.
        is_leaving = request.path in (reverse("logout"), reverse("admin:logout"))
        if request.user.is_authenticated and not is_leaving:
            answer = self._check(request)
            if answer is not None:
                return answer
        return self._get_response(request)
