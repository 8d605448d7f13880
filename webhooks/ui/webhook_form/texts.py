"""What the form says: the sentence under each field, and those for an empty or refused one."""

from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from webhooks.network import UnsafeURLError

HELP = {
    "name": _("Shown in the list and in the log, for example “CRM: missed calls”."),
    "url": _("Where the events are sent, for example “https://example.com/hooks/calls”."),
    "body_format": _("GET has no body: with GET everything goes into the query string."),
    "date_format": _(
        "How dates are written in every event, for example “2026-03-02T09:14:05Z” in ISO 8601."
    ),
    "uses_older_names": _(
        "For receivers built for the previous platform, which expect “billsec” instead of "
        "“talk_seconds”."
    ),
    "basic_login": _(
        "Sent with the password in the Authorization header of every request, for example “pbx”."
    ),
    "token_name": _("Your own word for this token, for example “CRM of the Kyiv office”."),
    "callback_url": _("It must match the one registered with the provider, letter by letter."),
    "auth_url": _(
        "Where you log in and approve, for example “https://provider.example/oauth/authorize”."
    ),
    "token_url": _(
        "Where the approval becomes a token, for example “https://provider.example/oauth/token”."
    ),
    "client_id": _(
        "The provider showed it when you registered this site there, for example “crm-4f21”."
    ),
    "scope": _("What the token may do, with spaces between, for example “read write”."),
    "client_authentication": _("The provider's documentation says which one it expects."),
}
REQUIRED = {
    "name": _("Enter a name, for example “CRM: missed calls”."),
    "url": _(
        "Enter the address that receives the events, for example “https://example.com/hooks/calls”."
    ),
    "basic_login": _("Enter the login the receiver expects."),
    "basic_password": _("Enter the password that belongs to the login."),
    "client_secret": _(
        "Enter the client secret: client credentials have nothing else to prove who asks."
    ),
    "auth_url": _(
        "Enter the provider's authorization address, for example "
        "“https://provider.example/oauth/authorize”."
    ),
    "token_url": _(
        "Enter the provider's token address, for example “https://provider.example/oauth/token”."
    ),
    "client_id": _("Enter the client ID the provider showed when you registered this site there."),
}


def refusal(error: UnsafeURLError) -> str:
    """Return the guard's reason, and the setting an operator has for an address of their own."""
    if error.opened_by:
        advice = gettext(
            "If it is meant to be reached, an operator can open it: "
            "WEBHOOKS_ALLOWED_NETWORKS=%(entry)s"
        ) % {"entry": error.opened_by}
    elif error.code in ("private_name", "own_name"):
        advice = gettext(
            "If it is meant to be reached, an operator can open the network it leads to with "
            "WEBHOOKS_ALLOWED_NETWORKS."
        )
    else:
        return error.reason
    return f"{error.reason} {advice}"
