"""DMM-Net over frames made by hand: objects that leave and return, what is missing, and who is told."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvos.errors import InputError
from jaxvos.inference import fold_clip
from jaxvos.system import Clip, Frame, Proposals
from jaxvos.systems import DMMNetConfig, dmm_net

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


def _masks() -> jax.Array:
    masks = np.zeros((*SIZE, 3), np.float32)
    for slot in (1, 2):
        left, top, right, bottom = PLACES[slot - 1].astype(int)
        masks[top:bottom, left:right, slot] = 1
    masks[..., 0] = 1 - masks.sum(-1)
    return jnp.asarray(masks)


@functools.cache
def _variables(config: DMMNetConfig):
    return jax.jit(dmm_net(config).init)(jax.random.key(0), Clip(jnp.zeros((1, 1, *SIZE, 3))))


def _stacked(*frames: Frame) -> Frame:
    return jax.tree.map(lambda *x: jnp.stack(x), *frames)


def _areas(found: jax.Array) -> np.ndarray:
    """Pixels of each slot in each frame."""
    labels = np.argmax(np.asarray(found), axis=-1)
    return np.stack([(labels == slot).sum((1, 2)) for slot in range(found.shape[-1])], axis=1)


def test_an_object_that_leaves_is_not_seen_and_is_found_again_elsewhere():
    """While it is away there is a proposal to take, that of the other object, and it is not taken."""
    frames = _stacked(_frame(0), _frame(0), _frame(None), _frame(None), _frame(2), _frame(2))
    run = functools.partial(fold_clip, dmm_net(BASE), _variables(BASE), masks=_masks())
    found = jax.jit(run)(frames)[1].masks
    areas = _areas(found)
    assert (areas[:2, 1] > 400).all() and (areas[2:4, 1] == 0).all() and (areas[4:, 1] > 300).all()
    assert (areas[:, 2] > 700).all()
    left, top, right, bottom = PLACES[2].astype(int)
    assert (np.argmax(np.asarray(found[4]), -1)[top + 2 : bottom - 2, left + 2 : right - 2] == 1).all()


def test_frames_without_any_proposal_are_answered_with_background():
    frames = _stacked(_frame(0), _frame(None, green=False), _frame(0))
    run = functools.partial(fold_clip, dmm_net(BASE), _variables(BASE), masks=_masks())
    areas = _areas(jax.jit(run)(frames)[1].masks)
    assert areas[1, 1:].tolist() == [0, 0] and (areas[2, 1:] > 400).all()


def test_the_order_of_the_objects_does_not_matter():
    config = DMMNetConfig(**{**vars(BASE), "refiner": "light", "iou_source": "refined"})
    run = jax.jit(functools.partial(fold_clip, dmm_net(config), _variables(config), _stacked(_frame(0), _frame(0))))
    one, other = run(masks=_masks())[1].masks, run(masks=_masks()[..., jnp.array([0, 2, 1])])[1].masks
    np.testing.assert_allclose(one, other[..., jnp.array([0, 2, 1])], atol=1e-5)


def test_an_object_smaller_than_a_pixel_of_the_net_is_alive():
    large = Frame(jnp.zeros((640, 960, 3)), proposals=_frame(0).proposals)
    masks = jnp.zeros((640, 960, 2)).at[..., 0].set(1.0).at[321, 487].set(jnp.array([0.0, 1.0]))
    memory = dmm_net(BASE).start(_variables(BASE), large, masks)
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
