"""Django's error pages (DEBUG) and error mails, reduced to where it broke, without values.

Django shows the variables of every frame, the query string, the form and all settings. Here they
contain passwords, codes and tokens, and DEBUG is easily left on by mistake.
"""

import re
from collections.abc import Callable, ItemsView
from types import FrameType
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.safestring import SafeString, mark_safe
from django.views.debug import ExceptionReporter, SafeExceptionReporterFilter

from webhooks.security.log_redaction import masker_of, posted, without_secrets

# Django's own pattern, and settings that may contain a URL with a password.
_HIDDEN = re.compile(
    "API|AUTH|TOKEN|KEY|SECRET|PASS|SIGNATURE|COOKIE|URL|LOCATION|PROXY|DSN|ENV", re.IGNORECASE
)
# The rest of META is the process's environment, cookies, or the URL again.
_SHOWN_META = re.compile(
    r"REQUEST_METHOD|PATH_INFO|SERVER_(NAME|PORT|PROTOCOL)|REMOTE_ADDR|CONTENT_(TYPE|LENGTH)"
    r"|HTTP_(HOST|USER_AGENT|ACCEPT\w*|HX_\w*REQUEST|ORIGIN)|wsgi\.(url_scheme|multi\w+)"
)


class ReportFilter(SafeExceptionReporterFilter):
    """Show names of variables and fields, and types instead of values, whatever DEBUG says."""

    hidden_settings = _HIDDEN

    def cleanse_setting(self, key: int | str, value: Any) -> Any:
        cleansed = super().cleanse_setting(key, value)
        # A setting of any name may contain a URL.
        return without_secrets(str(cleansed)) if isinstance(cleansed, str) else cleansed

    def is_active(self, request: HttpRequest | None) -> bool:
        return True

    def get_safe_request_meta(self, request: HttpRequest | None) -> dict[str, Any]:
        meta = request.META if request else {}
        return {name: value for name, value in meta.items() if _SHOWN_META.fullmatch(name)}

    def get_safe_cookies(self, request: HttpRequest | None) -> dict[str, str]:
        return dict.fromkeys(request.COOKIES if request else (), self.cleansed_substitute)

    def get_post_parameters(self, request: HttpRequest | None) -> dict[str, str]:
        return dict.fromkeys(posted(request) if request else (), self.cleansed_substitute)

    def get_traceback_frame_variables(
        self, request: HttpRequest | None, tb_frame: FrameType
    ) -> ItemsView[str, Any]:
        return {name: _TypeOnly(value) for name, value in tb_frame.f_locals.items()}.items()


class _TypeOnly:
    """Replaces a value; shows only its type."""

    def __init__(self, value: object) -> None:
        self._name = type(value).__name__

    def __repr__(self) -> str:
        return f"<{self._name}>"


class Reporter(ExceptionReporter):
    """Django's report without the values of the request."""

    def get_traceback_data(self) -> dict[str, Any]:
        data = super().get_traceback_data()
        # Quotes the part of the text that could not be decoded.
        data["unicode_hint"] = ""
        if self.request is not None:
            names = dict.fromkeys(self.request.GET, self.filter.cleansed_substitute)
            data["request_GET_items"] = names.items()
            data["request_insecure_uri"] = data["request_insecure_uri"].partition("?")[0]
        return data

    def get_traceback_html(self) -> SafeString:
        return self._masked(super().get_traceback_html())

    def get_traceback_text(self) -> SafeString:
        return self._masked(super().get_traceback_text())

    def _masked(self, report: SafeString) -> SafeString:
        """Mask the request's values, which the text of an error may quote."""
        if self.request is None:
            return report
        # Already escaped, and a mask needs no escaping.
        return mark_safe(masker_of(self.request).mask(report))  # noqa: S308


def masked_not_found(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[HttpRequest], HttpResponseBase]:
    """Mask the request's values in Django's DEBUG page for an unknown URL.

    A callback URL that was registered with a mistake ends there, with the code in its query string.
    """

    def answer(request: HttpRequest) -> HttpResponseBase:
        response = get_response(request)
        if settings.DEBUG and response.status_code == 404 and isinstance(response, HttpResponse):
            masked = masker_of(request).mask(response.content.decode())
            response.content = masked.encode()
            response["Content-Length"] = len(response.content)
        return response

    return answer
