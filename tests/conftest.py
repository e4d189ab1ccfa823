"""Fixtures shared by all rooms: a key, and the real data where the checkout has it beside it."""

import os
from pathlib import Path

os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # compiling, not running, is what the tests spend time on

import jax  # noqa: E402
import pytest  # noqa: E402

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
