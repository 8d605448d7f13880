"""The user of the pages, unless a test chooses another."""

import pytest
from django.test import Client


@pytest.fixture
def browser() -> Client:
    """The browser of a user with every permission, who may not enter Django admin."""
    # Models can be imported once Django is set up, which is after this file is read.
    from tests.people import logged_in

    return logged_in(is_superuser=True)
