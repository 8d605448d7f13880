"""Who looks at the screens, where a test does not say otherwise."""

import pytest
from django.test import Client


@pytest.fixture
def browser() -> Client:
    """The browser of a person with every permission, who may not enter Django admin."""
    # Models are there once Django is set up, which is after this file is read.
    from tests.people import logged_in

    return logged_in(is_superuser=True)
