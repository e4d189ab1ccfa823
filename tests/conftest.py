"""Fixtures shared by all rooms: a key, and the real data where the checkout has it beside it."""

from pathlib import Path

import jax
import pytest

_SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    if not (_SHARED / "data").is_dir():
        pytest.skip(f"no real data at {_SHARED / 'data'}")
    return _SHARED / "data"


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    if not (_SHARED / "golden").is_dir():
        pytest.skip(f"no golden values at {_SHARED / 'golden'}")
    return _SHARED / "golden"
