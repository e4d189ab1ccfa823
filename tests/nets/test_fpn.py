"""The pyramid and the heads on it, against the formulas written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvos.nets import FPN, BoxHead, MaskHead, RegionHead, pyramid_roi_align
from jaxvos.ops import roi_align

SIZES = {2: (20, 27), 3: (10, 14), 4: (5, 7), 5: (3, 4)}


@pytest.fixture(scope="module")
def stages():
    rng = np.random.default_rng(0)
    return {n: jnp.array(rng.normal(size=(1, *size, n)), jnp.float32) for n, size in SIZES.items()}


def test_levels_are_sums_from_above(stages):
    """Torch's nearest neighbour of a coarse map at any finer size, odd ones included; level 6 is a part of level 5."""
    fpn = FPN((2, 3, 4, 5, 6), 3)
    variables = fpn.init(jax.random.key(0), stages)
    params, pyramid = variables["params"], fpn.apply(variables, stages)
    assert {level: x.shape for level, x in pyramid.items()} == {
        **{level: (1, *size, 3) for level, size in SIZES.items()}, 6: (1, 2, 2, 3)
    }
    above = None
    for level in (5, 4, 3, 2):
        inner = params[f"inner_{level}"]
        x = np.asarray(stages[level]) @ np.asarray(inner["kernel"])[0, 0] + np.asarray(inner["bias"])
        if above is not None:
            rows, columns = (np.arange(n) * m // n for n, m in zip(x.shape[1:3], above.shape[1:3], strict=True))
            x = x + above[:, rows][:, :, columns]
        above, padded = x, np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        kernel, (h, w) = np.asarray(params[f"layer_{level}"]["kernel"]), x.shape[1:3]
        expected = sum(padded[:, i : i + h, j : j + w] @ kernel[i, j] for i in range(3) for j in range(3))
        np.testing.assert_allclose(pyramid[level], expected, atol=1e-4)
    np.testing.assert_array_equal(pyramid[6], pyramid[5][:, ::2, ::2])


def test_a_pyramid_may_start_higher(stages):
    shapes = jax.eval_shape(FPN((3, 4), 3).init, jax.random.key(0), stages)["params"]
    assert set(shapes) == {"inner_3", "inner_4", "layer_3", "layer_4"}


def test_a_box_is_sampled_from_the_level_of_its_size():
    """Level 4 for a side of the canonical size, one more for twice that; the ends take the rest."""
    rng = np.random.default_rng(1)
    pyramid = {level: jnp.array(rng.normal(size=(64 >> level, 64 >> level, 2)), jnp.float32) for level in (2, 3, 4)}
    sides, levels = (3.0, 15.9, 16.0, 31.9, 32.0, 60.0), (2, 2, 3, 3, 4, 4)
    boxes = jnp.array([(1.0, 2.0, 1 + side * 1.0, 2 + side * 1.0) for side in sides])
    for aligned in (True, False):
        sample = jax.jit(lambda p, b, aligned=aligned: pyramid_roi_align(
            p, b, output_size=(2, 3), canonical_size=32.0, sampling=1, aligned=aligned))  # fmt: skip
        found = sample(pyramid, boxes)
        for i, level in enumerate(levels):
            expected = roi_align(pyramid[level], boxes[i : i + 1], output_size=(2, 3), scale=2.0**-level, sampling=1,
                                 aligned=aligned)  # fmt: skip
            np.testing.assert_allclose(found[i], expected[0], atol=1e-5)


def test_the_region_head_goes_row_by_row_and_pixel_by_pixel():
    """Features that say where they are come out in the order of the anchors."""
    head, x = RegionHead(2), jnp.arange(12.0).reshape(1, 3, 4, 1)
    params = jax.tree.map(jnp.zeros_like, head.init(jax.random.key(0), x)["params"])
    params["conv"]["kernel"] = params["conv"]["kernel"].at[1, 1].set(1.0)
    params["cls_logits"]["kernel"] = jnp.array([[[[1.0, 100.0]]]])
    params["bbox_pred"]["kernel"] = jnp.arange(8.0).reshape(1, 1, 1, 8)
    logits, deltas = head.apply({"params": params}, x)
    np.testing.assert_array_equal(logits[0], np.stack([np.arange(12), 100 * np.arange(12)], -1).ravel())
    np.testing.assert_array_equal(deltas[0, 2], np.arange(4))
    np.testing.assert_array_equal(deltas[0, 5], 2 * np.arange(4, 8))


def test_heads_have_one_answer_for_each_class():
    x = jnp.ones((5, 4, 4, 3))
    (logits, deltas), _ = BoxHead(3, 8).init_with_output(jax.random.key(0), x)
    masks, variables = MaskHead(3, 8, 2).init_with_output(jax.random.key(0), x)
    assert logits.shape == (5, 3) and deltas.shape == (5, 3, 4) and masks.shape == (5, 8, 8, 3)
    assert set(variables["params"]) == {"mask_fcn1", "mask_fcn2", "conv5_mask", "mask_fcn_logits"}
