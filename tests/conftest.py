"""One thread for all tests, so that numbers do not depend on a machine's processors; none asserts a time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

settings.register_profile("gradseal", deadline=None)
settings.load_profile("gradseal")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def one_thread_again() -> Iterator[None]:
    """After a test that took more."""
    yield
    torch.set_num_threads(1)
