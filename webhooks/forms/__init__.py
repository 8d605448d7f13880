"""The webhook form and its parts.

`form`: the whole form. `fields`: the write-only secret and the event types. `headers`: rows of
custom headers. `authorization`: the rules of each authorization type. `credentials`: a webhook's
own or those of a connection. `connections`: the form of a connection. `drafts`: typed secrets
between two requests. Knows models and the modules below; no request, no HTTP.
"""

from webhooks.forms.connections import ConnectionForm
from webhooks.forms.form import WebhookForm
from webhooks.forms.headers import Header, stored_headers
from webhooks.security.drafts import Draft

__all__ = ["ConnectionForm", "Draft", "Header", "WebhookForm", "stored_headers"]
