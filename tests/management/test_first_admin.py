"""The account that the first start creates."""

import pytest
from django.contrib.auth import get_user_model

from webhooks.management.commands import run

pytestmark = pytest.mark.django_db


def test_a_start_creates_an_admin_only_if_there_is_none() -> None:
    users = get_user_model().objects
    assert run._prepare_database()
    assert users.get().is_superuser
    assert run._prepare_database() == ""
    users.update(is_superuser=False)
    assert run._prepare_database() == ""
    assert users.count() == 1
