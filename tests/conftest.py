from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from tests.browser import Chromium

SHARED = Path(__file__).parents[2] / "shared" / "data"

# A machine that others use may take a second for what is a millisecond's work.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """Small tensors gain nothing from threads, and workers that share cores lose by them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="session")
def _float32_unless_asked() -> Iterator[None]:
    """`auto` is float32 on every machine; what is said of bfloat16 is tested where it is named."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diascope.hardware._has", lambda unit: False)
        yield


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the pixel cache or the key of the user, or of another test."""
    monkeypatch.setenv("DIASCOPE_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("DIASCOPE_KEY", "a key that tests share")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images beside the repository; the test is skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"real images are not on this machine: no folder {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """The browser of all tests of pages."""
    chromium = Chromium(lambda: tmp_path_factory.mktemp("profile"))
    yield chromium
    chromium.end()
