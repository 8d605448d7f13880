"""Columns that pages leave in the database: sealed secrets, which no list opens."""

from webhooks.models import Webhook
from webhooks.secrets import SecretField

SECRETS = [field.name for field in Webhook._meta.fields if isinstance(field, SecretField)]
TOKEN_SECRETS = ["token__access_token", "token__refresh_token"]
CONNECTION_SECRETS = [f"connection__{name}" for name in (*SECRETS, *TOKEN_SECRETS)]
