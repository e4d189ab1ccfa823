"""Correspondence as an objective: what each option asks for, on looks that need no net; and on a host."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvos.errors import InputError
from jaxvos.losses import grid_anchors, pixel_consistency
from jaxvos.ops import Keys
from jaxvos.system import Clip, Proposals
from jaxvos.systems import (
    Correspondence,
    CorrespondenceConfig,
    Look,
    MemoryConfig,
    STCNConfig,
    XMemConfig,
    correspondence_loss,
    stcn,
    xmem,
)
from jaxvos.training import evolve

B, T, H, W = 2, 3, 64, 96
BASE = CorrespondenceConfig(projection=(8, 4), num_boxes=2, num_candidates=6, ramp=(0, 10))


@functools.cache
def _clip():
    rng = np.random.default_rng(0)
    masks = np.zeros((B, T, H, W, 4), np.float32)
    masks[:, :, 4:60, 2:40, 1] = masks[:, :, 8:50, 42:90, 2] = 1
    masks[..., 0] = 1 - masks.sum(axis=-1)
    corners = rng.uniform(0, 20, (B, T, 8, 2)).astype(np.float32)
    proposals = Proposals(np.concatenate([corners, corners + 35], axis=-1), np.zeros((B, T, 8, 2, 2), np.float32),
                          np.ones((B, T, 8), np.float32), np.ones((B, T, 8), bool))  # fmt: skip
    clip = Clip(rng.random((B, T, H, W, 3)).astype(np.float32), masks, np.array([[True, True, True, False]] * B),
                proposals=proposals)  # fmt: skip
    return jax.tree.map(jnp.asarray, clip)


def _look(images, anisotropic=False):
    """Keys and features that are means over cells: they move with the image."""
    cells = images.reshape(*images.shape[:-3], H // 16, 16, W // 16, 16, 3).mean(axis=(-4, -2))
    key = jnp.concatenate([3 * cells, -cells[..., :2]], axis=-1)
    keys = Keys(key, 1 + cells[..., 0], cells[..., [0, 1, 2, 0, 1]]) if anisotropic else Keys(key)
    return Look(keys, jnp.concatenate([cells, cells**2], axis=-1), (cells, cells))


def _variables(config):
    return Correspondence(config, 5).init(jax.random.key(3), jax.tree.map(lambda x: x[:, 0], _look(_clip().images)))


def _loss(config, *, key=0, step=10, anisotropic=False, clip=None):
    clip = clip or _clip()
    look = functools.partial(_look, anisotropic=anisotropic)
    return correspondence_loss(jax.random.key(key), _variables(config), clip, look(clip.images), look=look,
                               config=config, step=step)  # fmt: skip


def test_adjacent_pixels_are_those_of_the_last_two_frames_against_the_first():
    config = evolve(BASE, boxes="none", grid=2)
    total, parts = _loss(config)
    keys = _look(_clip().images).keys.key
    pixel_key, _ = jax.random.split(jax.random.key(0))
    anchors = jax.vmap(lambda key: grid_anchors(key, size=(4, 6), grid=2))(jax.random.split(pixel_key, B))
    expected = pixel_consistency(Keys(keys[:, 1]), Keys(keys[:, 2]), Keys(keys[:, 0]), anchors)
    np.testing.assert_allclose(parts["pixels"], expected, rtol=1e-6)
    np.testing.assert_allclose(total, 0.2 * expected, rtol=1e-6)


def test_the_ramp_brings_it_in():
    config = evolve(BASE, ramp=(10, 30), boxes="none")
    at = [float(_loss(config, step=step)[0]) for step in (0, 10, 20, 30, 99)]
    assert at[0] == at[1] == 0 and at[3] == at[4] > 0
    np.testing.assert_allclose(at[2], at[3] / 2, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("change", [
    {"pixels": "warped_view"}, {"pixels": "none"}, {"pixel_weight": 0.7}, {"grid": 2}, {"second_key": True},
    {"boxes": "random"}, {"boxes": "proposals"}, {"boxes": "none"}, {"object_weight": 0.7}, {"num_boxes": 1},
    {"min_box": 40.0}, {"matcher": "sinkhorn"}, {"temperature": 0.5}, {"projection": (4, 4)}, {"ramp": (0, 40)},
], ids=str)  # fmt: skip
def test_every_option_changes_the_loss(change):
    assert abs(float(_loss(BASE)[0]) - float(_loss(evolve(BASE, **change))[0])) > 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"view_weight": 0.7}, {"view_grid": 2}], ids=str)
def test_options_of_warped_views_change_the_loss(change):
    base = evolve(BASE, pixels="warped_view", boxes="none")
    assert abs(float(_loss(base)[0]) - float(_loss(evolve(base, **change))[0])) > 1e-6


@pytest.mark.slow
def test_the_number_of_candidates_changes_the_loss():
    base = evolve(BASE, boxes="random", pixels="none")
    assert float(_loss(base)[0]) != float(_loss(evolve(base, num_candidates=12))[0])


@pytest.mark.slow
@pytest.mark.parametrize("pixels", ["adjacent", "warped_view"])
@pytest.mark.parametrize("anisotropic", [False, True], ids=["l2", "anisotropic"])
def test_keys_of_both_hosts_have_finite_gradients(pixels, anisotropic):
    config = evolve(BASE, pixels=pixels)

    def loss(images):
        return _loss(config, anisotropic=anisotropic, clip=_clip()._replace(images=images))[0]

    gradient = jax.grad(loss)(_clip().images)
    assert np.isfinite(gradient).all() and np.any(np.asarray(gradient))


def test_a_view_of_itself_is_easier_than_another_frame():
    """Warped keys meet the keys of the warped image: with fine anchors most places find their own label."""
    still = jnp.broadcast_to(_clip().images[:, :1], _clip().images.shape)
    easy = _loss(evolve(BASE, pixels="warped_view", boxes="none"), clip=_clip()._replace(images=still))[1]["pixels"]
    assert float(easy) < np.log(2 * 16)  # what chance has, of 16 anchors in each of two clips


def test_dead_slots_have_no_boxes():
    spoilt = _clip()._replace(masks=_clip().masks.at[..., 3].set(1))
    np.testing.assert_array_equal(_loss(BASE)[0], _loss(BASE, clip=spoilt)[0])


def test_proposals_must_be_there():
    with pytest.raises(ValueError, match="proposals"):
        _loss(evolve(BASE, boxes="proposals"), clip=_clip()._replace(proposals=None))


@pytest.mark.parametrize(("change", "word"), [
    ({"pixels": "none", "boxes": "none"}, "nothing"), ({"temperature": 0.0}, "temperature"),
    ({"num_boxes": 0}, "boxes"),
    ({"ramp": (5, 2)}, "ramp"), ({"pixel_weight": -1.0}, "weights"),
], ids=str)  # fmt: skip
def test_what_makes_no_sense_is_refused(change, word):
    with pytest.raises(InputError, match=word):
        evolve(BASE, **change)


@pytest.mark.slow
@pytest.mark.parametrize(("build", "config_type"), [(stcn, STCNConfig), (xmem, XMemConfig)], ids=["stcn", "xmem"])
def test_hosts_learn_it_and_predict_as_without_it(build, config_type):
    """The host's own loss and what is asked beside it add up, and prediction does not see the heads."""
    plain = config_type(key_encoder="resnet18", value_encoder="resnet18", encoder_width=4, key_width=8, value_width=8,
                        decoder_widths=(8, 8, 8), memory=MemoryConfig(every=2, frames=4, top_k=8))  # fmt: skip
    asked = evolve(plain, correspondence=BASE)
    clip, key = _clip(), jax.random.key(1)
    variables = jax.jit(build(asked).init)(jax.random.key(0), clip)
    heads = set(variables["params"]) - set(jax.eval_shape(build(plain).init, key, clip)["params"])
    assert heads == {"correspondence"}
    value = lambda config: jax.jit(lambda v: build(config).loss(v, clip, key=key, step=10))(variables)  # noqa: E731
    own, both = value(plain), value(asked)
    more = 0.2 * both.scalars["pixels"] + 0.04 * both.scalars["objects"]
    np.testing.assert_allclose(both.loss, own.loss + more, rtol=1e-4)
    gradient = jax.jit(jax.grad(lambda p: build(asked).loss({**variables, "params": p}, clip, key=key, step=10).loss))(
        variables["params"]
    )
    assert all(np.isfinite(x).all() and np.any(np.asarray(x)) for x in jax.tree.leaves(gradient["correspondence"]))
