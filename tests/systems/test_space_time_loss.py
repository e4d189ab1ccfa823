"""What networks with a space-time memory learn from: the fold of prediction, softly, and judged frame by frame."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference.toy_space_time import ToyNet, image, mask, run, toy

from jaxvos.errors import InputError
from jaxvos.losses import dice_loss
from jaxvos.system import Clip, Frame
from jaxvos.systems import MaskLossConfig, MemoryConfig
from jaxvos.systems._space_time import follower

PLAIN = {"keep": 1.0}


@functools.cache
def _loss(*, hidden=None, reference_frames=None, deep_update=1.0, **objective):
    system = follower(ToyNet(hidden=hidden), memory_config=MemoryConfig(), loss_config=MaskLossConfig(**objective),
                      reference_frames=reference_frames, deep_update=deep_update)  # fmt: skip
    return jax.jit(system.loss)


def _clip(count, *, slots=3, seed=0):
    """Two clips that start at different places."""
    times = [range(first, first + count) for first in (seed, seed + 7)]
    images = np.stack([[image(t, 1, 2) for t in each] for each in times])
    masks = np.stack([[mask(t, 1, 2, slots=slots) for t in each] for each in times])
    alive = np.broadcast_to(np.arange(slots) < 3, (2, slots))
    return Clip(jnp.array(images), jnp.array(masks), alive=jnp.array(alive))


def _total(clip, *, step=0, seed=0, **options):
    return float(_loss(**options)({}, clip, key=jax.random.key(seed), step=jnp.int32(step)).loss)


@pytest.mark.parametrize("count", [2, 4])
def test_training_sees_what_prediction_does(count):
    """Every frame is remembered and the softmax is over all: then the losses are those of the predictions."""
    clip, expected = _clip(count), {"cross_entropy": [], "dice": []}
    for images, masks in zip(clip.images, clip.masks, strict=True):
        found, _ = run(toy(every=1), [Frame(x) for x in images], masks=masks[0])
        pairs = list(zip(found[1:], np.asarray(masks)[1:], strict=True))
        expected["cross_entropy"].append(sum(-np.log(p[m > 0]).mean() for p, m in pairs))
        expected["dice"].append(sum(float(dice_loss(jnp.log(jnp.array(p)), jnp.array(m))) for p, m in pairs))
    output = _loss(**PLAIN, dice_weight=0.5)({}, clip, key=jax.random.key(0), step=jnp.int32(0))
    for name, values in expected.items():
        np.testing.assert_allclose(output.scalars[name], np.mean(values), rtol=1e-3)
    total = np.mean(expected["cross_entropy"]) + 0.5 * np.mean(expected["dice"])
    np.testing.assert_allclose(output.loss, total, rtol=1e-3)


def test_slots_without_an_object_change_nothing():
    assert abs(_total(_clip(3, slots=5), **PLAIN) - _total(_clip(3), **PLAIN)) < 1e-5
    one = _clip(3)._replace(alive=jnp.array([[True, True, False], [True, True, True]]))
    assert abs(_total(one, **PLAIN) - _total(_clip(3), **PLAIN)) > 1e-3  # but a dead object is not looked for


def test_all_slots_and_frames_count_unless_said_otherwise():
    clip = _clip(3)
    said = clip._replace(valid=jnp.ones((2, 3), bool))
    assert _total(said, **PLAIN) == pytest.approx(_total(clip._replace(alive=None), **PLAIN))


def test_frames_that_are_padding_do_not_count():
    """A clip weighs as much as the others: the mean over its valid frames, times the frames after the first."""
    clip, short = _clip(4), _clip(3)
    valid = jnp.array([[True, True, True, False]] * 2)
    padded = _total(clip._replace(valid=valid), **PLAIN)
    noise = clip._replace(images=clip.images.at[:, 3].set(0.3), masks=clip.masks.at[:, 3].set(0), valid=valid)
    assert padded == pytest.approx(_total(noise, **PLAIN), rel=1e-5)
    assert padded == pytest.approx(1.5 * _total(short, **PLAIN), rel=1e-5)
    first_alone = _total(clip._replace(valid=jnp.array([[True, False, False, False]] * 2)), **PLAIN)
    assert first_alone == 0


@pytest.mark.parametrize("step", [0, 20, 45, 70, 100])
def test_the_share_of_hard_pixels_falls_over_the_ramp(step):
    share = 1 - 0.85 * np.clip((step - 20) / 50, 0, 1)
    ramped = _total(_clip(2), step=step, keep=0.15, keep_ramp=(20, 70))
    fixed = _total(_clip(2), step=10, keep=float(share), keep_ramp=(0, 0))
    assert ramped == pytest.approx(fixed, rel=1e-5)


BASE = {"keep": 0.5, "keep_ramp": (0, 10), "hidden": 1}


@pytest.mark.parametrize("option", [
    {"keep": 0.2}, {"keep_ramp": (0, 20)}, {"dice_weight": 1.0}, {"reference_frames": 2}, {"deep_update": 0.0},
], ids=str)  # fmt: skip
def test_every_option_of_the_loss_changes_it(option):
    before, after = (_total(_clip(5), step=8, **{**BASE, **x}) for x in ({}, option))
    assert np.isfinite(after) and abs(after - before) > 1e-6 * before


def test_what_is_drawn_is_the_first_frame_and_others():
    """Of three frames before the last, two are read: which ones the key decides, so that there are two losses."""
    clip = _clip(4)
    losses = {round(_total(clip, seed=seed, reference_frames=2, **PLAIN), 5) for seed in range(12)}
    assert len(losses) > 1
    for count in (3, 4, None):
        assert _total(clip, reference_frames=count, **PLAIN) == pytest.approx(_total(clip, **PLAIN), rel=1e-5)
    first = {round(_total(clip, seed=seed, reference_frames=1, **PLAIN), 5) for seed in range(4)}
    assert len(first) == 1  # the first alone, whatever the key


def test_the_hidden_state_is_renewed_as_often_as_asked():
    clip = _clip(4)
    total = functools.partial(_total, clip, hidden=1, **PLAIN)
    losses = {x: {total(seed=seed, deep_update=x) for seed in range(8)} for x in (0.0, 0.5, 1.0)}
    assert len(losses[0.0]) == len(losses[1.0]) == 1 and losses[0.0] != losses[1.0]
    assert len(losses[0.5]) > 2
    never, always = (_total(_clip(2), hidden=1, deep_update=x, **PLAIN) for x in (0.0, 1.0))
    assert never == pytest.approx(always, rel=1e-6)  # the first frame's value always renews it


def test_masks_are_what_it_learns_from():
    with pytest.raises(ValueError, match="masks are what it learns from"):
        toy().loss({}, _clip(2)._replace(masks=None), key=jax.random.key(0), step=0)


@pytest.mark.parametrize("options", [
    {"keep": 0.0}, {"keep": 1.5}, {"keep_ramp": (5, 4)}, {"keep_ramp": (-1, 4)}, {"dice_weight": -0.1},
], ids=str)  # fmt: skip
def test_objectives_that_make_no_sense_are_named(options):
    with pytest.raises(InputError, match="dice_weight"):
        MaskLossConfig(**options)
