"""The people and clients that the provider has from its first start."""

from django.contrib.auth.models import User
from django.db import transaction
from oauth2_provider.models import Application

from tests.sandbox.clients import (
    AUTHORIZATION_CLIENT,
    MACHINE_CLIENT,
    ODD_CLIENT,
    OTHER_CLIENT,
    PEOPLE,
    PUBLIC_CLIENT,
    SandboxClient,
)


@transaction.atomic
def register(callback_urls: list[str]) -> None:
    """Create people and clients, or update those of an earlier start."""
    for name in PEOPLE:
        person, _ = User.objects.get_or_create(username=name)
        person.set_password(name)
        person.save(update_fields=["password"])
    code = Application.GRANT_AUTHORIZATION_CODE
    _register(AUTHORIZATION_CLIENT, "Webhooks 2.0", code, callback_urls)
    _register(OTHER_CLIENT, "Another application", code, callback_urls)
    _register(ODD_CLIENT, "An application with an odd secret", code, callback_urls)
    _register(PUBLIC_CLIENT, "A public application", code, callback_urls, is_public=True)
    _register(MACHINE_CLIENT, "A machine", Application.GRANT_CLIENT_CREDENTIALS, [])


def _register(
    client: SandboxClient,
    name: str,
    grant_type: str,
    callback_urls: list[str],
    *,
    is_public: bool = False,
) -> None:
    Application.objects.update_or_create(
        client_id=client.client_id,
        defaults={
            "name": name,
            # In plain text: the toolkit's field hashes it on save.
            "client_secret": client.client_secret,
            "client_type": "public" if is_public else "confidential",
            "authorization_grant_type": grant_type,
            "redirect_uris": " ".join(callback_urls),
        },
    )
