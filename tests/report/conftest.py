"""The browser as tests of reports find it."""

from __future__ import annotations

from typing import Any

import pytest
from tests.browser import Chromium


@pytest.fixture
def clean(browser: Chromium) -> Any:
    """The driver of a browser on an empty page."""
    return browser.emptied()
