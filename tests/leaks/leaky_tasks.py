"""A task that logs and returns a secret from its arguments, and one that only fails."""

import logging

from celery import shared_task

from webhooks.models import Webhook

logger = logging.getLogger("tests.leaks")


@shared_task(ignore_result=False)
def leak(control: str) -> str:
    logger.debug("worked on %s", control)
    return control


@shared_task
def break_down() -> None:
    """Fail as a task could, with decrypted secrets in its variables."""
    every = Webhook._base_manager.select_related("credential")
    held = [(one.credential.client_secret, one.signing_secret) for one in every]
    raise RuntimeError(f"{len(held)} webhooks")
