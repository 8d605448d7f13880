"""Columns that pages leave in the database: sealed secrets, which no list opens."""

from webhooks.models import CREDENTIAL_SECRETS, WEBHOOK_SECRETS

TOKEN_SECRETS = ("token__access_token", "token__refresh_token")
# Of a webhook with the credential it uses and that one's token.
SECRETS_OF_WEBHOOK = (
    *WEBHOOK_SECRETS,
    *(f"credential__{name}" for name in (*CREDENTIAL_SECRETS, *TOKEN_SECRETS)),
)
