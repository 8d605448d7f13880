"""A task that is given a secret, writes it down and returns it."""

import logging

from celery import shared_task

logger = logging.getLogger("tests.leaks")


@shared_task(ignore_result=False)
def leak(control: str) -> str:
    logger.debug("worked on %s", control)
    return control
