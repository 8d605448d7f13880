"""Fixtures of the tests of the engine."""

import pytest


@pytest.fixture
def calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust an ended lease at once; a new engine otherwise waits for workers to come back."""
    monkeypatch.setattr("webhooks.delivery.db_session.CALM_SECONDS", 0.0)
