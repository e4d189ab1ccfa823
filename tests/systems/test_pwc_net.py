"""PWC-Net: what it is told apart by, that every option matters, and that it learns."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxvos.data import SyntheticConfig, synthetic_batch
from jaxvos.errors import InputError
from jaxvos.inference import fold, fold_clip
from jaxvos.nets import PWCNet
from jaxvos.ops import correlation, warp
from jaxvos.system import Frame
from jaxvos.systems import PairAugmentationConfig, PWCNetConfig, pwc_net
from jaxvos.systems._frame_pairs import to_pixels
from jaxvos.training import evolve

STILL = PairAugmentationConfig(probability=0.0)
BASE = PWCNetConfig(widths=(4, 4, 4, 4, 4, 4), decoder_widths=(4, 4), dense=False, context_scale=0.0, radius=1,
                    augmentation=STILL)  # fmt: skip


@functools.cache
def _clip(size=64):
    config = SyntheticConfig(height=size, width=size, num_frames=3, num_objects=1, flow_noise=0.0)
    clip = synthetic_batch(0, 7, config, batch_size=1)  # one that moves
    return jax.tree.map(jnp.asarray, clip)._replace(edges=None, masks=None, alive=None)


@functools.cache
def _variables(config):
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(pwc_net(config).init, jax.random.key(0), _clip())
    scale = lambda leaf: np.prod(leaf.shape[:-1]) ** -0.5 if leaf.ndim > 1 else 0.0  # noqa: E731
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, scale(leaf), leaf.shape), jnp.float32), shapes)


@functools.cache
def _loss(config):
    return jax.jit(functools.partial(pwc_net(config).loss, key=jax.random.key(1), step=0))


def test_the_published_net_has_its_size():
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    net = PWCNet()
    shapes = jax.eval_shape(net.init, jax.random.key(0), images, images)["params"]
    assert 8.7e6 < sum(int(np.prod(x.shape)) for x in jax.tree.leaves(shapes)) < 9.4e6  # the paper: 8.75 million
    assert shapes["conv6_0"]["kernel"].shape == (3, 3, 81, 128)
    assert shapes["conv5_0"]["kernel"].shape == (3, 3, 81 + 128 + 4, 128)
    assert shapes["dc_conv1"]["kernel"].shape == (3, 3, 81 + 32 + 4 + 448, 128)


def test_a_level_looks_where_the_level_above_points(monkeypatch):
    """Its cost volume is that of the second features, fetched by the flow that was found, in pixels of the level."""
    seen = []

    def spy(f1, f2, *, radius):
        seen.append((f1.shape, radius))
        return correlation(f1, f2, radius=radius)

    fetched = []

    def spy_warp(x, flow):
        fetched.append(flow)
        return warp(x, flow)

    monkeypatch.setattr("jaxvos.nets._pwc_net.correlation", spy)
    monkeypatch.setattr("jaxvos.nets._pwc_net.warp", spy_warp)
    net = PWCNet(widths=(4,) * 6, decoder_widths=(4,), dense=False, context_scale=0.0, radius=2)
    image = jnp.asarray(np.random.default_rng(0).random((1, 128, 192, 3)), jnp.float32)
    jax.eval_shape(lambda image: net.init_with_output(jax.random.key(0), image, image)[0], image)
    assert [shape[:2] for shape, _ in seen] == [(2, 3), (4, 6), (8, 12), (16, 24), (32, 48)] and len(fetched) == 4
    assert {radius for _, radius in seen} == {2}


OPTIONS = {
    "widths": [(8, 4, 4, 4, 4, 4)], "decoder_widths": [(4,)], "dense": [True], "context_scale": [0.1], "radius": [2],
    "normalize": [True], "input_size": [(64, 128)], "supervision": ["images"], "loss": ["sq", "charbonnier"],
    "photometric": ["charbonnier", "ssim"], "smoothness": [1.0], "smoothness_order": [2],
    "occlusion": [False], "occlusion_from": [1],
    "augmentation": [{"probability": 1.0}, *({"probability": 1.0, "flip": 0.0} | change for change in (
        {"flip": 1.0}, {"rotation": 40.0}, {"scale": (2.0, 2.0)}, {"shift": 0.4}))],
}  # fmt: skip
UNSUPERVISED = {"photometric", "smoothness", "smoothness_order", "occlusion", "occlusion_from"}


def test_the_table_of_options_is_complete():
    assert set(OPTIONS) == {field.name for field in dataclasses.fields(PWCNetConfig)}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in OPTIONS.items() for value in values])
def test_every_option_changes_something(name, value):
    base = evolve(BASE, supervision="images") if name in UNSUPERVISED else BASE
    if name == "augmentation" and len(value) > 1:
        base = evolve(base, augmentation={"probability": 1.0, "flip": 0.0})
    config = evolve(base, **{name: value})
    if name == "input_size":
        frame = Frame(_clip().images[0, 0], next_image=_clip().images[0, 1])
        answers = [jax.jit(pwc_net(c).predict)(_variables(c), (), frame)[1].flow for c in (base, config)]
    else:
        grow = 1.5 if name.startswith("occlusion") else 1.0  # of larger flow, something is hidden
        answers = [_loss(c)(jax.tree.map(lambda x: grow * x, _variables(c)), _clip()).loss for c in (base, config)]
    assert np.isfinite(answers[1]).all() and jnp.abs(answers[1] - answers[0]).max() > 1e-7


@pytest.mark.parametrize("supervision", ["flow", "images"])
def test_loss_and_gradients_are_finite_and_reach_every_parameter(supervision):
    config = evolve(BASE, supervision=supervision, dense=True, context_scale=0.02, normalize=True,
                    augmentation=PairAugmentationConfig())  # fmt: skip
    system, variables = pwc_net(config), _variables(config)

    def total(params):
        output = system.loss({"params": params}, _clip(), key=jax.random.key(1), step=3)
        return output.loss, output.scalars

    (loss, scalars), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(variables["params"])
    assert np.isfinite(loss) and "epe" in scalars
    dead = [jax.tree_util.keystr(path) for path, leaf in jax.tree_util.tree_leaves_with_path(gradient)
            if not (np.isfinite(leaf).all() and np.abs(leaf).max() > 0)]  # fmt: skip
    # where level 6 has one position, normalised features are those of the pair alone, and biases cancel
    assert not [name for name in dead if "bias" not in name]


def test_scan_equals_stream_with_one_trace():
    system, variables = pwc_net(BASE), _variables(BASE)
    counted = system._replace(predict=chex.assert_max_traces(system.predict, n=1))
    images = _clip().images[0]
    frames = [Frame(images[i][:50, :60], next_image=images[i + 1][:50, :60]) for i in range(2)]
    streamed = [p for _, p in fold(counted, variables, frames)]
    _, scanned = jax.jit(lambda f: fold_clip(system, variables, f))(jax.tree.map(lambda *x: jnp.stack(x), *frames))
    for index, prediction in enumerate(streamed):
        assert prediction.flow.shape == (50, 60, 2) and prediction.masks.shape == (50, 60, 1)
        chex.assert_trees_all_close(prediction, jax.tree.map(lambda x, i=index: x[i], scanned), atol=1e-5)


def test_flow_is_in_pixels_of_the_frame():
    """A quarter of the input's size, in units of 20 of its pixels; the frame is three times as wide as the input."""
    said = jnp.full((16, 16, 2), 0.5)
    np.testing.assert_allclose(to_pixels(said, (64, 192)), jnp.broadcast_to(jnp.array([30.0, 10.0]), (64, 192, 2)))


def test_padding_and_unknown_flow_do_not_count():
    clip, variables = _clip(), _variables(BASE)
    short = clip._replace(images=clip.images[:, :2], flow=clip.flow[:, :2], valid=None)
    padded = clip._replace(valid=jnp.array([[True, True, False]]))
    losses = [_loss(BASE)(variables, c).loss for c in (short, padded)]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    unknown = clip._replace(flow=clip.flow.at[:, 1].set(jnp.nan), valid=None)
    assert _loss(BASE)(variables, unknown).loss == pytest.approx(float(losses[0]) / 2, rel=1e-4)


def test_what_is_wrong_is_named():
    with pytest.raises(InputError, match="multiples of 64"):
        pwc_net(evolve(BASE, input_size=(64, 100)))
    with pytest.raises(InputError, match="six levels"):
        pwc_net(evolve(BASE, widths=(4, 4)))
    system, variables = pwc_net(BASE), _variables(BASE)
    for clip, words in ((_clip()._replace(images=_clip().images[:, :1]), "two frames"),
                        (_clip()._replace(flow=None), "known flow")):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            system.loss(variables, clip, key=jax.random.key(0), step=0)
    with pytest.raises(ValueError, match="next_image"):
        system.predict(variables, (), Frame(jnp.zeros((64, 64, 3))))


def test_the_step_is_traced():
    jax.eval_shape(lambda step: pwc_net(BASE).loss(_variables(BASE), _clip(), key=jax.random.key(0), step=step),
                   jnp.int32(0))  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("supervision", ["flow", "images"])
def test_it_learns_the_motion_of_a_clip(supervision, key):
    """With the true flow, and without."""
    config = evolve(BASE, widths=(8, 12, 16, 16, 16, 16), decoder_widths=(16, 16), radius=3, normalize=True,
                    supervision=supervision, smoothness=0.02, occlusion_from=10**6)  # fmt: skip
    system, clip = pwc_net(config), _clip(128)
    tx = optax.adam(3e-3)
    variables = jax.jit(system.init)(key, clip)
    state = tx.init(variables)

    @jax.jit
    def update(variables, state):
        def total(variables):
            output = system.loss(variables, clip, key=key, step=0)
            return output.loss, output.scalars["epe"]

        (_, error), gradient = jax.value_and_grad(total, has_aux=True)(variables)
        updates, state = tx.update(gradient, state)
        return optax.apply_updates(variables, updates), state, error

    errors = []
    for _ in range(120):
        variables, state, error = update(variables, state)
        errors.append(float(error))
    still = float(jnp.mean(jnp.linalg.norm(clip.flow[:, :2], axis=-1)))
    assert errors[-1] < 0.6 * still
