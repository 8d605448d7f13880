"""The account that the first start creates."""

import pytest
from django.contrib.auth import get_user_model

from webhooks.management.commands import run

pytestmark = pytest.mark.django_db


def test_a_start_creates_an_admin_only_if_there_is_none() -> None:
    users = get_user_model().objects
    assert run.first_password()
    assert users.get().is_superuser
    assert run.first_password() == ""
    users.update(is_superuser=False)
    assert run.first_password() == ""
    assert users.count() == 1


def test_a_start_names_a_login_that_exists() -> None:
    users = get_user_model().objects
    users.create_superuser("the boss")
    assert "changepassword 'the boss'" in run.head_lines("")[-1]
    users.create_superuser("admin")
    assert "changepassword admin" in run.head_lines("")[-1]
