"""Columns that pages leave in the database: sealed secrets, which no list opens."""

from webhooks.models import WEBHOOK_SECRETS

TOKEN_SECRETS = ["token__access_token", "token__refresh_token"]
CONNECTION_SECRETS = [f"connection__{name}" for name in (*WEBHOOK_SECRETS, *TOKEN_SECRETS)]
