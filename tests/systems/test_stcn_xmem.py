"""STCN and XMem with their own nets, at the smallest size: options, gradients, and the fold."""

import dataclasses
import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference.toy_space_time import frame, image, mask, run, stack

from jaxvos.inference import fold_clip, jitted_predict
from jaxvos.models import abstract_variables, load_model
from jaxvos.system import Clip
from jaxvos.systems import LongTermConfig, MaskLossConfig, MemoryConfig, STCNConfig, XMemConfig, stcn, xmem

SIZE = (32, 48)
NET = {"key_encoder": "resnet18", "value_encoder": "resnet18", "encoder_width": 4, "key_width": 8, "value_width": 8,
       "decoder_widths": (8, 8, 8)}  # fmt: skip
STCN = STCNConfig(**NET, memory=MemoryConfig(every=2, frames=4, top_k=8))
LONG = LongTermConfig(min_frames=2, prototypes=8, capacity=24)
XMEM = XMemConfig(**NET, hidden_width=4, memory=MemoryConfig(every=2, frames=4, top_k=8, long_term=LONG))


def _variables(system):
    """Random ones, the same for a parameter of the same name whatever the others are."""

    def draw(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        x = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(leaf.shape).astype(np.float32)
        if path[-1].key == "kernel":
            return jnp.array(x * np.prod(leaf.shape[:-1]) ** -0.5)
        return jnp.array(np.abs(x) + 0.5 if path[-1].key in ("scale", "var") else 0.3 * x)

    return jax.tree_util.tree_map_with_path(draw, abstract_variables(system))


def _clip(count=3, *, slots=3):
    images = np.stack([image(t, 1, 2, size=SIZE) for t in range(count)])[None]
    masks = np.stack([mask(t, 1, 2, slots=slots, size=SIZE) for t in range(count)])[None]
    return Clip(jnp.array(images), jnp.array(masks), alive=jnp.array([[x < 3 for x in range(slots)]]))


@pytest.mark.parametrize("fixture", ["tiny_stcn", "tiny_xmem"])
def test_the_scan_equals_the_stream(fixture, request):
    model = load_model(request.getfixturevalue(fixture))
    told, gone = {2: (2,), 7: (1,)}, {4: (True, False, True), 5: (True, False, True)}
    frames = [frame(t, 1, 2, size=SIZE, told=told.get(t, ()), alive=gone.get(t)) for t in range(10)]
    first = mask(0, 1, size=SIZE)
    streamed, _ = run(model.system, frames, masks=first, variables=model.variables)
    scan = jax.jit(functools.partial(fold_clip, model.system))
    _, scanned = scan(model.variables, stack(frames), masks=jnp.array(first))
    np.testing.assert_allclose(scanned.masks, streamed, atol=1e-4)
    np.testing.assert_allclose(streamed.sum(axis=-1), 1, atol=1e-5)
    np.testing.assert_array_equal(streamed[0], first)
    assert np.all(streamed[4:7, ..., 1] == 0) and np.ptp(streamed[8, ..., 1]) > 0
    assert jitted_predict(model.system)._cache_size() == 1


@pytest.mark.parametrize(("build", "config"), [
    pytest.param(stcn, STCN, id="stcn"), pytest.param(xmem, XMEM, id="xmem", marks=pytest.mark.slow),
])  # fmt: skip
def test_gradients_are_finite_and_reach_every_parameter(build, config):
    system = build(config)
    variables = _variables(system)

    def total(params, clip):
        return system.loss({**variables, "params": params}, clip, key=jax.random.key(0), step=jnp.int32(0)).loss

    value = jax.jit(jax.value_and_grad(total))
    loss, gradient = value(variables["params"], _clip())
    assert np.isfinite(loss) and loss > 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        assert np.isfinite(leaf).all(), name
        assert np.abs(leaf).max() > 0, f"{name} gets no gradient"
    padded, _ = value(variables["params"], _clip(slots=4))
    assert abs(padded - loss) < 1e-5


@functools.cache
def _answer(build, config):
    """The second and third frames: one is read from memory, and one from a memory and a hidden state."""
    system = build(config)
    frames = [frame(t, 1, 2, size=SIZE) for t in range(3)]
    return run(system, frames, masks=mask(0, 1, 2, size=SIZE), variables=_variables(system))[0][1:]


@pytest.mark.parametrize(("build", "config", "option"), [
    (stcn, STCN, {"decoder": "fusion"}), (stcn, STCN, {"attention": False}),
    (xmem, XMEM, {"anisotropic": False}), (xmem, XMEM, {"attention": False}),
], ids=lambda x: str(x) if isinstance(x, dict) else "")  # fmt: skip
def test_every_option_of_the_net_changes_the_answer(build, config, option):
    before, after = _answer(build, config), _answer(build, dataclasses.replace(config, **option))
    assert np.isfinite(after).all() and np.abs(after - before).max() > 1e-3


@functools.cache
def _loss(build, config):
    system = build(config)
    return jax.jit(system.loss)(_variables(system), _clip(4), key=jax.random.key(0), step=jnp.int32(5)).loss


@pytest.mark.slow
@pytest.mark.parametrize(("build", "config", "option"), [
    (stcn, STCN, {"objective": MaskLossConfig(dice_weight=0.4)}),
    (xmem, XMEM, {"objective": MaskLossConfig()}),
    (xmem, XMEM, {"reference_frames": 1}),
    (xmem, XMEM, {"deep_update": 1.0}),
], ids=lambda x: str(x) if isinstance(x, dict) else "")  # fmt: skip
def test_every_option_of_training_changes_the_loss(build, config, option):
    before, after = _loss(build, config), _loss(build, dataclasses.replace(config, **option))
    assert np.isfinite(after) and abs(after - before) > 1e-5


SIZES = [{"key_encoder": "resnet34"}, {"value_encoder": "resnet34"}, {"encoder_width": 8}, {"key_width": 4},
         {"value_width": 4}, {"decoder_widths": (8, 8, 4)}]  # fmt: skip


@pytest.mark.parametrize(("build", "config", "option"), [
    *((stcn, STCN, size) for size in SIZES), *((xmem, XMEM, size) for size in [*SIZES, {"hidden_width": 2}]),
], ids=lambda x: str(x) if isinstance(x, dict) else "")  # fmt: skip
def test_sizes_of_the_net_are_heeded(build, config, option):
    """Shapes alone: nothing is computed."""
    before, after = (abstract_variables(build(x)) for x in (config, dataclasses.replace(config, **option)))
    shapes = [jax.tree.map(lambda x: x.shape, tree) for tree in (before, after)]
    assert shapes[0] != shapes[1]
