"""DMM-Net over frames made by hand: objects that leave and return, what is missing, and who is told."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxvos.data import JitterConfig, ObjectDataConfig, SyntheticConfig, object_batches
from jaxvos.errors import InputError
from jaxvos.inference import fold_clip
from jaxvos.system import Clip, Frame, Proposals
from jaxvos.systems import DMMNetConfig, FrameAugmentationConfig, dmm_net

SIZE = (64, 96)
PLACES = np.array([[8, 8, 32, 32], [56, 30, 88, 60], [40, 4, 60, 24]], np.float32)  # red, green, and red later on
BASE = DMMNetConfig(backbone="resnet18", backbone_width=8, input_size=SIZE, match_width=8, refiner="none",
                    skip_widths=(8, 8, 8, 8), light_widths=(8, 8, 8, 8), iou_source="matched")  # fmt: skip


def _frame(red: int | None, *, green: bool = True) -> Frame:
    """Squares on grey: red at one of the places or nowhere, green at its own; exact proposals of what is there."""
    image = np.full((*SIZE, 3), 0.5, np.float32)
    shown = ([(red, (1, 0, 0))] if red is not None else []) + ([(1, (0, 1, 0))] if green else [])
    boxes, valid = np.zeros((3, 4), np.float32), np.arange(3) < len(shown)
    for slot, (place, colour) in enumerate(shown):
        left, top, right, bottom = PLACES[place].astype(int)
        image[top:bottom, left:right] = colour
        boxes[slot] = PLACES[place]
    proposals = Proposals(boxes, np.ones((3, 28, 28), np.float32), valid.astype(np.float32), valid)
    return jax.tree.map(jnp.asarray, Frame(image, proposals=proposals))


def _masks(red: int = 0) -> jax.Array:
    masks = np.zeros((*SIZE, 3), np.float32)
    for slot, place in enumerate((red, 1), start=1):
        left, top, right, bottom = PLACES[place].astype(int)
        masks[top:bottom, left:right, slot] = 1
    masks[..., 0] = 1 - masks.sum(-1)
    return jnp.asarray(masks)


@functools.cache
def _variables(config: DMMNetConfig):
    """As `init` draws them, without compiling it."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if path[-1].key == "kernel":
            return jnp.asarray(rng.normal(0, np.sqrt(2 / np.prod(leaf.shape[:-1])), leaf.shape), jnp.float32)
        return jnp.full(leaf.shape, float(path[-1].key in ("scale", "var")))

    shapes = jax.eval_shape(dmm_net(config).init, jax.random.key(0), Clip(jnp.zeros((1, 1, *SIZE, 3))))
    return jax.tree_util.tree_map_with_path(draw, shapes)


@functools.cache
def _folded(config: DMMNetConfig):
    return jax.jit(functools.partial(fold_clip, dmm_net(config), _variables(config)))


def _answers(config: DMMNetConfig, *frames: Frame, masks: jax.Array) -> jax.Array:
    return _folded(config)(jax.tree.map(lambda *x: jnp.stack(x), *frames), masks=masks)[1].masks


def _areas(found: jax.Array) -> np.ndarray:
    """Pixels of each slot in each frame."""
    labels = np.argmax(np.asarray(found), axis=-1)
    return np.stack([(labels == slot).sum((1, 2)) for slot in range(found.shape[-1])], axis=1)


def test_an_object_that_leaves_is_not_seen_and_is_found_again_elsewhere():
    """While it is away there is a proposal to take, that of the other object, and it is not taken."""
    frames = _frame(0), _frame(0), _frame(None), _frame(None), _frame(2), _frame(2)
    found = _answers(BASE, *frames, masks=_masks())
    areas = _areas(found)
    assert (areas[:2, 1] > 400).all() and (areas[2:4, 1] == 0).all() and (areas[4:, 1] > 300).all()
    assert (areas[:, 2] > 700).all()
    left, top, right, bottom = PLACES[2].astype(int)
    assert (np.argmax(np.asarray(found[4]), -1)[top + 2 : bottom - 2, left + 2 : right - 2] == 1).all()


def test_frames_without_any_proposal_are_answered_with_background():
    frames = _frame(0), *[_frame(None, green=False)] * 3, _frame(0), _frame(0)
    found = _answers(BASE, *frames, masks=_masks())
    areas = _areas(found)
    assert np.isfinite(found).all() and not areas[1:4, 1:].any() and (areas[4:, 1:] > 400).all()


def test_the_first_frame_is_answered_with_what_was_told():
    """Whatever its proposals say: here there are none."""
    found = _answers(BASE, *[_frame(None, green=False)] * 6, masks=_masks(red=2))
    np.testing.assert_array_equal(np.argmax(found[0], axis=-1), np.argmax(_masks(red=2), axis=-1))


def test_templates_move_towards_what_they_match():
    """By the share that is asked for; not in the first frame, nor while there is no match."""
    system, variables = dmm_net(dataclasses.replace(BASE, template_update=0.25)), _variables(BASE)
    start, predict = jax.jit(system.start), jax.jit(system.predict)
    memory, there = (start(variables, _frame(red), _masks(red)) for red in (0, 2))
    first = predict(variables, memory, _frame(0))[0]
    np.testing.assert_array_equal(first.templates, memory.templates)
    moved = predict(variables, first, _frame(2))[0].templates
    np.testing.assert_allclose(moved, 0.75 * memory.templates + 0.25 * there.templates, atol=1e-4)
    assert jnp.abs(moved - memory.templates).max() > 1e-2
    alone = predict(variables, first, _frame(None))[0].templates
    np.testing.assert_array_equal(alone[0], memory.templates[0])
    assert jnp.abs(alone[1] - memory.templates[1]).max() > 1e-2


def test_the_order_of_the_objects_does_not_matter():
    config, swap = dataclasses.replace(BASE, refiner="light", iou_source="refined"), jnp.array([0, 2, 1])
    one, other = (_answers(config, _frame(0), _frame(2), masks=m) for m in (_masks(), _masks()[..., swap]))
    np.testing.assert_allclose(one, other[..., swap], atol=1e-5)
    assert jnp.abs(one - other).max() > 0.1


def test_an_object_smaller_than_a_pixel_of_the_net_is_alive():
    large = Frame(jnp.zeros((640, 960, 3)), proposals=_frame(0).proposals)
    masks = jnp.zeros((640, 960, 2)).at[..., 0].set(1.0).at[321, 487].set(jnp.array([0.0, 1.0]))
    memory = jax.jit(dmm_net(BASE).start)(_variables(BASE), large, masks)
    assert memory.alive.tolist() == [True] and memory.masks.max() == pytest.approx(1.0)


def test_what_is_missing_is_named():
    system, variables, frame = dmm_net(BASE), _variables(BASE), _frame(0)
    with pytest.raises(ValueError, match="give their masks on the first frame"):
        system.start(variables, frame, None)
    memory = jax.eval_shape(system.start, variables, frame, _masks())
    with pytest.raises(ValueError, match="needs proposals"):
        jax.eval_shape(system.predict, variables, memory, frame._replace(proposals=None))
    with pytest.raises(ValueError, match="trained on masks and proposals"):
        system.loss(variables, Clip(jnp.zeros((1, 1, *SIZE, 3))), key=jax.random.key(0), step=0)
    with pytest.raises(InputError, match="heavy refiner needs a ResNet"):
        dmm_net(DMMNetConfig(backbone="efficientnet_lite0", refiner="heavy"))


@pytest.mark.slow
def test_it_learns_two_clips_by_heart(key):
    synthetic = SyntheticConfig(min_objects=2, min_area=0.05)
    data = ObjectDataConfig(batch_size=2, size=SIZE, num_frames=2, num_objects=2, synthetic=synthetic,
                            jitter=JitterConfig(num_proposals=6))  # fmt: skip
    batches = object_batches(data, seed=0)[0](0)
    clip = jax.tree.map(jnp.asarray, next(batches))
    batches.close()
    still = FrameAugmentationConfig(flip=0.0, rotation=0.0, shift=0.0, shear=0.0, scale=(1.0, 1.0))
    config = dataclasses.replace(BASE, refiner="light", iou_source="refined", augmentation=still)
    system, tx = dmm_net(config), optax.adam(1e-2)

    @jax.jit
    def update(variables, state, key):
        def loss(params):
            output = system.loss({**variables, "params": params}, clip, key=key, step=0)
            return output.loss, output

        (_, output), gradient = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        updates, state = tx.update(gradient, state)
        params = optax.apply_updates(variables["params"], updates)
        return {"params": params, **output.model_state}, state, output.scalars

    variables = _variables(config)
    state = tx.init(variables["params"])
    history = []
    for step in range(60):
        variables, state, scalars = update(variables, state, jax.random.fold_in(key, step))
        history.append(scalars)
    assert history[0]["refined_iou"] < 0.4 and history[-1]["refined_iou"] > 0.6
    assert history[-1]["similarity_loss"] < history[0]["similarity_loss"]
