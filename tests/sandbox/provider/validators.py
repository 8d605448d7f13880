"""Strict client authentication by RFC 6749 2.3, where django-oauth-toolkit is lenient."""

import base64
import binascii
import re
from typing import Any

from oauth2_provider.oauth2_validators import OAuth2Validator
from oauthlib.common import Request

# Output of application/x-www-form-urlencoded: no raw colon, no stray "%", only ASCII.
_FORM_URLENCODED = re.compile(r"(?:[A-Za-z0-9*._~+-]|%[0-9A-Fa-f]{2})*")


class StrictValidator(OAuth2Validator):
    def authenticate_client(self, request: Request, *args: Any, **kwargs: Any) -> bool:
        """Accept exactly one method of authentication, and Basic only if it is form-urlencoded.

        The toolkit tries the body after a failed Basic header, and accepts "%" and non-ASCII
        characters that were never encoded.
        """
        basic = self._extract_basic_auth(request)
        if not basic:
            return bool(self._authenticate_request_body(request))
        if getattr(request, "client_secret", None):
            return False
        return _is_form_urlencoded(basic) and bool(self._authenticate_basic_auth(request))


def _is_form_urlencoded(basic: str) -> bool:
    """Return whether both halves of a Basic credential are encoded as RFC 6749 2.3.1 requires."""
    try:
        decoded = base64.b64decode(basic, validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        return False
    halves = decoded.split(":")
    return len(halves) == 2 and all(_FORM_URLENCODED.fullmatch(half) for half in halves)
