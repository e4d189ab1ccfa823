"""Masks of instances: tight boxes, overlap, and the way to the box and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvos.ops import crop_masks, mask_boxes, mask_iou, paste_masks, resize

paste = jax.jit(paste_masks, static_argnums=2)
crop = jax.jit(crop_masks, static_argnames="size")


def _ellipses(size, centres, radii):
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    pairs = zip(centres, radii, strict=True)
    return jnp.array([((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1 for (cx, cy), (rx, ry) in pairs])


def test_tight_boxes_of_masks_and_of_nothing():
    masks = np.zeros((4, 9, 12), np.float32)
    masks[0, 2:5, 3:11] = 1
    masks[1, 8, 11] = 0.6  # the last pixel
    masks[2, 1, 1], masks[2, 3, 4] = 0.45, 0.9
    masks = jnp.array(masks)
    expected = [[3, 2, 11, 5], [11, 8, 12, 9], [4, 3, 5, 4], [0, 0, 0, 0]]
    np.testing.assert_array_equal(mask_boxes(masks), expected)
    np.testing.assert_array_equal(mask_boxes(masks > 0.5), expected)
    np.testing.assert_array_equal(mask_boxes(masks, threshold=0.4)[2], [1, 1, 5, 4])


@pytest.mark.parametrize("dtype", [bool, np.float32])
def test_overlap_counts_pixels(dtype):
    rng = np.random.default_rng(0)
    a, b = rng.random((3, 8, 9)) < 0.5, rng.random((4, 8, 9)) < 0.3
    a[0], b[0] = False, False
    expected = [[(x & y).sum() / max((x | y).sum(), 1) for y in b] for x in a]
    np.testing.assert_allclose(mask_iou(jnp.array(a, dtype), jnp.array(b, dtype)), expected, atol=1e-6)


def test_pasting_at_its_own_size_is_a_copy_with_a_seam_of_nothing(key):
    masks = jax.random.uniform(key, (2, 6, 6))
    found = paste(masks, jnp.array([[3.0, 2, 9, 8], [-2, 5, 4, 11]]), (10, 12))
    expected = np.zeros((2, 10, 12))
    expected[0, 2:8, 3:9], expected[1, 5:10, 0:4] = masks[0], masks[1, :5, 2:]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_pasting_enlarges_bilinearly_and_fades_over_the_edge(key):
    """Inside the box as an image library enlarges the mask in a ring of zeros; half a cell beyond the box, nothing."""
    masks = jax.random.uniform(key, (1, 4, 4))
    found = paste(masks, jnp.array([[10.0, 20, 50, 40]]), (60, 70))[0]
    ringed = resize(jnp.pad(masks[0], 2)[..., None], (40, 80))[..., 0]  # cells of 5 x 10 pixels
    np.testing.assert_allclose(found[10:50, :65], ringed[:, 10:75], atol=1e-5)
    beyond = np.ones((60, 70), bool)
    beyond[18:42, 5:55] = False
    assert float(jnp.abs(found[beyond]).max()) == 0
    solid = paste(jnp.ones((1, 4, 4)), jnp.array([[10.0, 20, 50, 40]]), (60, 70))[0] > 0.5
    np.testing.assert_array_equal(mask_boxes(solid[None])[0], [10, 20, 50, 40])


def test_cropping_averages_the_pixels_of_a_cell(key):
    masks = jax.random.uniform(key, (2, 20, 30))
    found = crop(masks, jnp.array([[3.0, 2, 15, 10], [24, 14, 36, 22]]), size=4)  # cells of 2 x 3 pixels
    np.testing.assert_allclose(found[0], masks[0, 2:10, 3:15].reshape(4, 2, 4, 3).mean((1, 3)), atol=1e-5)
    padded = np.pad(masks[1], ((0, 2), (0, 6)))[14:22, 24:36]
    np.testing.assert_allclose(found[1], padded.reshape(4, 2, 4, 3).mean((1, 3)), atol=1e-5)
    share = crop(jnp.ones((1, 4, 4)), jnp.array([[-1.5, 0, 2.5, 4]]), size=2)  # edges between pixels
    np.testing.assert_allclose(share[0], [[0.25, 1], [0.25, 1]], atol=1e-6)


def test_to_the_box_and_back():
    size, centres, radii = (60, 90), [(30.2, 25.7), (70, 30), (88, 55)], [(24, 19.5), (4.5, 6), (9, 12)]
    truth = _ellipses(size, centres, radii)
    boxes = mask_boxes(truth)
    small = crop(truth.astype(jnp.float32), boxes)
    assert small.shape == (3, 28, 28)
    again = paste(small, boxes, size)
    assert np.diag(mask_iou(again > 0.5, truth)).min() > 0.9
    wave = jnp.sin(jnp.pi * (jnp.arange(28) + 0.5) / 28)  # near zero at the edge, which pasting softens
    large = jnp.array([[3.3, 2.6, 199.1, 180.4]])
    again = crop(paste(jnp.outer(wave, wave)[None], large, (200, 220)), large)[0]
    np.testing.assert_allclose(again, jnp.outer(wave, wave), atol=0.02)


def test_empty_boxes_hold_nothing_and_have_finite_gradients():
    masks, boxes = jnp.ones((3, 4, 4)), jnp.array([[5.0, 5, 5, 9], [0, 0, 0, 0], [8, 8, 2, 2]])
    into = lambda masks, boxes: jnp.sum(paste_masks(masks, boxes, (12, 12)) ** 2)  # noqa: E731
    out = lambda frame, boxes: jnp.sum(crop_masks(frame, boxes, size=4) ** 2)  # noqa: E731
    for function, argument in ((into, masks), (out, jnp.ones((3, 12, 12)))):
        value, gradients = jax.jit(jax.value_and_grad(function, (0, 1)))(argument, boxes)
        assert float(value) == 0 and all(bool(jnp.isfinite(g).all()) for g in gradients)


def test_pasting_is_linear_in_the_masks_and_moves_with_the_box(key):
    masks, boxes = jax.random.uniform(key, (1, 4, 4)), jnp.array([[2.3, 1.2, 9.1, 10.4]])
    weights = jax.random.normal(key, (1, 12, 12))
    loss = jax.jit(lambda masks, boxes: jnp.sum(weights * paste_masks(masks, boxes, (12, 12))))
    to_masks, to_boxes = jax.jit(jax.grad(loss, (0, 1)))(masks, boxes)
    np.testing.assert_allclose(jnp.sum(to_masks * masks), loss(masks, boxes), rtol=1e-4)
    step = 1e-2 * jnp.eye(4)[:, None]
    slopes = [(loss(masks, boxes + s) - loss(masks, boxes - s)) / 2e-2 for s in step]
    np.testing.assert_allclose(to_boxes[0], slopes, rtol=0.05, atol=0.02)
