"""What every system promises, over the presets of TransportNet at test size; of others: test_proposal_systems.py."""

import dataclasses
import functools
import importlib.util
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvos.data import SyntheticConfig, synthetic_batch
from jaxvos.inference import fold, fold_clip
from jaxvos.system import Clip, Frame
from jaxvos.systems import AugmentationConfig, TransportNetConfig, transportnet
from jaxvos.training import evolve

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"


def _presets(name):
    spec = importlib.util.spec_from_file_location(f"experiment_{name}", EXPERIMENTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.PRESETS


def _shrink(config):
    """A preset's own choices, on thin nets and small frames."""
    small = {"backbone_width": 8, "decoder_width": 16, "input_size": (64, 64), "transport": {"num_iters": 4}}
    if config.backbone_app.startswith("resnet"):
        small |= {"backbone_app": "resnet18", "backbone_mot": "resnet18"}
    if config.transport.proj_dim is not None:
        small["transport"]["proj_dim"] = 8
    return evolve(config, **small)


PRESETS = {f"transportnet-{name}": _shrink(preset.system) for name, (_, preset) in _presets("transportnet").items()}
UNIQUE = {config: name for name, config in reversed(PRESETS.items())}  # paper and tiny shrink to the same net
BASE = PRESETS["transportnet-tiny"]


@functools.cache
def _clip():
    config = SyntheticConfig(height=64, width=64, num_frames=1, num_objects=2, flow_noise=0.0)
    return jax.tree.map(jnp.asarray, synthetic_batch(0, 1, config, batch_size=2))


def _variables(config):
    """Random variables without compiling `init`, which would cost more than what is tested with them."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        match path[-1].key:
            case "scale" | "var":
                return jnp.ones(leaf.shape)
            case "bias" | "mean":
                return jnp.zeros(leaf.shape)
            case _:
                return jnp.asarray(0.1 * rng.standard_normal(leaf.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, jax.eval_shape(transportnet(config).init, jax.random.key(0), _clip()))


def test_presets_build_at_full_size():
    """Shapes alone, nothing is computed. LSSH has no parameter, so the rows of Table 3 have equally many."""
    counts = {}
    for name, (_, preset) in _presets("transportnet").items():
        shapes = jax.eval_shape(transportnet(preset.system).init, jax.random.key(0), _clip())
        counts[name] = sum(int(np.prod(x.shape)) for x in jax.tree.leaves(shapes["params"]))
    rows = {name: counts[name] for name in ("paper", "sh", "lsh", "ssh", "none", "res5", "res45", "paper_literal")}
    assert len(set(rows.values())) == 1
    assert 60e6 < counts["paper"] < 80e6 and counts["lite"] < 6e6


@pytest.mark.parametrize("config", [
    pytest.param(config, id=name, marks=[] if name.endswith("tiny") else pytest.mark.slow)
    for config, name in UNIQUE.items()
])
def test_loss_and_gradients_are_finite_and_reach_every_parameter(config):
    system, variables = transportnet(config), _variables(config)

    def total(params):
        return system.loss({**variables, "params": params}, _clip(), key=jax.random.key(1), step=jnp.int32(3)).loss

    loss, gradient = jax.jit(jax.value_and_grad(total))(variables["params"])
    assert np.isfinite(loss)
    unreached = {"edge_head"} if not config.edge_loss else set()
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        assert np.isfinite(leaf).all(), name
        assert jnp.abs(leaf).max() > 0 or unreached & set(name.split("/")), f"{name} gets no gradient"


# option of the system's own config: values that must each change something
OPTIONS = {
    "backbone_app": ["resnet34"],
    "backbone_mot": ["resnet34"],
    "backbone_width": [4],
    "input_size": [(64, 96)],
    "stages": [(4, 5), (5,)],
    "transport": [{"matcher": "none"}],  # its own options: tests/nets/test_transport.py
    "trunk_update": [True],
    "decoder_width": [8],
    "pyramid": ["aspp"],
    "flow_repr": ["wheel_fixed_radius", "uv_mag"],
    "flow_radius": [5.0],
    "edge_loss": [False],
    "edge_lambda": [0.5],
    "edge_radius": [2],
    "edge_pos_weight": ["hed"],
    "bn": ["frozen"],
    "tta_flip": [True],
    "augmentation": [{"flip": 1.0}, {"rotation": 30.0}, {"scale": (1.2, 1.5)}, {"flow": "vector"}],
}
PREDICTION = {"input_size", "tta_flip"}  # act where frames are predicted; the others act on the loss


def test_the_table_of_options_is_complete():
    assert set(OPTIONS) == {field.name for field in dataclasses.fields(TransportNetConfig)}
    changed = {name for value in OPTIONS["augmentation"] for name in value}
    assert changed == {field.name for field in dataclasses.fields(AugmentationConfig)}


@functools.cache
def _answer(config, where):
    """Not compiled as a whole: most operations are shared by all configurations, and compiled once for all."""
    system, clip, variables = transportnet(config), _clip(), _variables(config)
    if where == "prediction":
        frame = Frame(clip.images[0, 0], flow=clip.flow[0, 0])
        return system.predict(variables, (), frame)[1].masks
    return system.loss(variables, clip, key=jax.random.key(1), step=0).loss


@pytest.mark.slow
@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in OPTIONS.items() for value in values])
def test_every_option_changes_something(name, value):
    base = evolve(BASE, stages=(4,), augmentation={"flip": 0.0, "rotation": 20.0})
    if name == "flow_radius":
        base = evolve(base, flow_repr="wheel_fixed_radius")
    where = "prediction" if name in PREDICTION else "loss"
    changed = evolve(base, **{name: value})
    before, after = _answer(base, where), _answer(changed, where)
    assert np.isfinite(after).all() and jnp.abs(after - before).max() > 1e-6


@pytest.mark.slow
def test_dead_slots_change_nothing():
    system, clip, variables = transportnet(BASE), _clip(), _variables(BASE)
    padded = clip._replace(
        masks=jnp.pad(clip.masks, [(0, 0)] * 4 + [(0, 3)]), alive=jnp.pad(clip.alive, ((0, 0), (0, 3)))
    )
    losses = [system.loss(variables, c, key=jax.random.key(1), step=0).loss for c in (clip, padded)]
    assert losses[0] == losses[1]


def test_scan_equals_stream_with_one_trace():
    system, variables = transportnet(BASE), _variables(BASE)
    frames = Frame(jax.random.uniform(jax.random.key(5), (4, 40, 56, 3)), flow=jnp.ones((4, 40, 56, 2)))
    counted = system._replace(predict=chex.assert_max_traces(system.predict, n=1))
    one_by_one = (Frame(image, flow=flow) for image, flow in zip(frames.image, frames.flow, strict=True))
    stream = [p for _, p in fold(counted, variables, one_by_one)]
    _, scanned = jax.jit(lambda f: fold_clip(system, variables, f))(frames)
    np.testing.assert_allclose(jnp.stack([p.masks for p in stream]), scanned.masks, atol=1e-5)
    np.testing.assert_allclose(jnp.stack([p.edges for p in stream]), scanned.edges, atol=1e-5)


def test_the_step_is_traced():
    """A schedule inside a loss must not retrace: `step` is an array."""
    system, variables = transportnet(BASE), _variables(BASE)
    loss = chex.assert_max_traces(lambda v, step: system.loss(v, _clip(), key=jax.random.key(1), step=step).loss, n=1)
    compiled = jax.jit(loss)
    assert compiled(variables, jnp.int32(0)) == compiled(variables, jnp.int32(1000))


def test_a_third_party_system_needs_no_registration():
    """Four functions are a system: the fold runs one that was written here."""
    from jaxvos.system import Prediction, System

    def predict(variables, memory, frame):
        return memory + 1, Prediction(jnp.full((*frame.image.shape[:2], 2), 0.5))

    counting = System(lambda key, clip: {}, lambda *a, **k: None, predict, lambda v, f, m=None: jnp.int32(0))
    frames = Frame(jnp.zeros((3, 4, 4, 3)))
    assert [int(m) for m, _ in fold(counting, {}, (Frame(x) for x in frames.image))] == [1, 2, 3]
    assert int(fold_clip(counting, {}, frames)[0]) == 3
    assert Clip(jnp.zeros((1, 1, 4, 4, 3))).masks is None
