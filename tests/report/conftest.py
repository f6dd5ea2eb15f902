"""The browser as tests of reports find it."""

from __future__ import annotations

from typing import Any

import pytest
from tests.browser import emptied


@pytest.fixture
def clean(driver: Any) -> Any:
    """The browser on an empty page."""
    return emptied(driver)
