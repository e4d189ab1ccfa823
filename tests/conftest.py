"""Fixtures shared by all rooms: a key, and the real data where the checkout has it beside it."""

import gc
import os
from pathlib import Path

os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # compiling, not running, is what the tests spend time on

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

_SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True, scope="module")
def few_memory_maps():
    """Forgets compiled functions before their number meets Linux's limit on memory maps (65,530), where XLA crashes."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and len(maps.read_bytes().splitlines()) > 25_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory):
    """Many tests, the processes that they start, and both workers run the same tiny programs: each is compiled once."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    settings = {
        "jax_compilation_cache_dir": str(folder / "compiled"),
        "jax_persistent_cache_min_compile_time_secs": 0.1,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    for name, value in settings.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)


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


def _save_tiny(folder: Path, name: str, system: str, config, build) -> Path:
    """A weights file with random weights: made, not computed, so nothing is compiled."""
    from jaxvos.models import abstract_variables, save_model

    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if path[-1].key == "kernel":
            return rng.normal(0, np.prod(leaf.shape[:-1]) ** -0.5, leaf.shape).astype(np.float32)
        return np.full(leaf.shape, path[-1].key in ("scale", "var"), np.float32)

    variables = jax.tree_util.tree_map_with_path(draw, abstract_variables(build(config)))
    path = folder / f"{name}.safetensors"
    save_model(path, variables, system=system, config=config, metadata={"licence": "CC0-1.0", "data": "none"})
    return path


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """The smallest TransportNet."""
    from jaxvos.systems import TransportNetConfig, transportnet

    config = TransportNetConfig(backbone_app="resnet18", backbone_mot="resnet18", backbone_width=8, decoder_width=16,
                                input_size=(64, 64), stages=(4, 5))
    return _save_tiny(tmp_path_factory.mktemp("models"), "tiny", "transportnet", config, transportnet)


@pytest.fixture(scope="session")
def tiny_dmm(tmp_path_factory) -> Path:
    """The smallest DMM-Net."""
    from jaxvos.systems import DMMNetConfig, dmm_net

    config = DMMNetConfig(backbone="resnet18", backbone_width=8, input_size=(64, 64), match_width=8,
                          skip_widths=(8, 8, 8, 8), light_widths=(8, 8, 8, 8))
    return _save_tiny(tmp_path_factory.mktemp("models"), "tiny-dmm", "dmm_net", config, dmm_net)


@pytest.fixture(scope="session")
def tiny_proposer(tmp_path_factory) -> Path:
    """The smallest Mask R-CNN."""
    from jaxvos.systems import MaskRCNNConfig, mask_rcnn

    config = MaskRCNNConfig(backbone="resnet18", backbone_width=8, input_size=(64, 64), fpn_width=8, levels=(4, 5),
                            roi_levels=(4, 5), canonical_size=32.0, anchor_sizes=(16.0, 32.0), pre_nms=32, post_nms=16,
                            roi_size=3, mask_roi_size=7, box_head_width=16, mask_head_width=8, mask_head_layers=1,
                            num_proposals=6)
    return _save_tiny(tmp_path_factory.mktemp("models"), "tiny-proposer", "mask_rcnn", config, mask_rcnn)


@pytest.fixture(scope="session")
def tiny_segflow(tmp_path_factory) -> Path:
    """The smallest SegFlow."""
    from jaxvos.systems import SegFlowConfig, segflow

    config = SegFlowConfig(backbone="resnet18", backbone_width=8, flow_width=2, input_size=(64, 64))
    return _save_tiny(tmp_path_factory.mktemp("models"), "tiny-segflow", "segflow", config, segflow)


@pytest.fixture(scope="session")
def tiny_pwc(tmp_path_factory) -> Path:
    """The smallest PWC-Net."""
    from jaxvos.systems import PWCNetConfig, pwc_net

    config = PWCNetConfig(widths=(4,) * 6, decoder_widths=(4,), context_scale=0.0, radius=1, input_size=(64, 64))
    return _save_tiny(tmp_path_factory.mktemp("models"), "tiny-pwc", "pwc_net", config, pwc_net)


@pytest.fixture(scope="session")
def tiny_stcn(tmp_path_factory) -> Path:
    """The smallest STCN."""
    from jaxvos.systems import MemoryConfig, STCNConfig, stcn

    config = STCNConfig(key_encoder="resnet18", value_encoder="resnet18", encoder_width=4, key_width=8, value_width=8,
                        decoder_widths=(8, 8, 8), memory=MemoryConfig(every=2, frames=4, top_k=8))
    return _save_tiny(tmp_path_factory.mktemp("models"), "tiny-stcn", "stcn", config, stcn)


@pytest.fixture(scope="session")
def tiny_mask_vos(tmp_path_factory) -> Path:
    """The smallest Mask-VOS."""
    from jaxvos.systems import MaskVOSConfig, MaskVOSNetConfig, PropagationConfig, mask_vos

    net = MaskVOSNetConfig(encoder="resnet18", value_encoder="resnet18", encoder_width=4, key_width=8, value_width=8,
                           decoder_widths=(8, 8, 8))
    config = MaskVOSConfig(net=net, memory=PropagationConfig(context=3, rounds=1, chunk=64))
    return _save_tiny(tmp_path_factory.mktemp("models"), "tiny-mask-vos", "mask_vos", config, mask_vos)


@pytest.fixture(scope="session")
def tiny_xmem(tmp_path_factory) -> Path:
    """The smallest XMem."""
    from jaxvos.systems import LongTermConfig, MemoryConfig, XMemConfig, xmem

    config = XMemConfig(key_encoder="resnet18", value_encoder="resnet18", encoder_width=4, key_width=8, value_width=8,
                        hidden_width=4, decoder_widths=(8, 8, 8),
                        memory=MemoryConfig(every=2, frames=4, top_k=8, long_term=LongTermConfig(
                            min_frames=2, prototypes=8, capacity=24)))
    return _save_tiny(tmp_path_factory.mktemp("models"), "tiny-xmem", "xmem", config, xmem)
