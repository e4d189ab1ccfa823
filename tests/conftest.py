"""Fixtures shared by all rooms: a key, and the real data where the checkout has it beside it."""

import os
from pathlib import Path

os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # compiling, not running, is what the tests spend time on

import jax  # noqa: E402
import numpy as np  # noqa: E402
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


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """A weights file of the smallest TransportNet, with random weights: made, not computed, so nothing is compiled."""
    from jaxvos.models import abstract_variables, save_model
    from jaxvos.systems import TransportNetConfig, transportnet

    config = TransportNetConfig(backbone_app="resnet18", backbone_mot="resnet18", backbone_width=8, decoder_width=16,
                                input_size=(64, 64), stages=(4, 5))
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if path[-1].key == "kernel":
            return rng.normal(0, np.prod(leaf.shape[:-1]) ** -0.5, leaf.shape).astype(np.float32)
        return np.full(leaf.shape, path[-1].key in ("scale", "var"), np.float32)

    variables = jax.tree_util.tree_map_with_path(draw, abstract_variables(transportnet(config)))
    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    story = {"licence": "CC0-1.0", "data": "none"}
    save_model(path, variables, system="transportnet", config=config, metadata=story)
    return path
