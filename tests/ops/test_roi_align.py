"""RoIAlign against torchvision's values, its average, and its gradient."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvos.ops import roi_align, roi_mean

FIXED = (0, 1, 6, 7, 10, 11)  # golden cases with a fixed number of samples


def _boxes(key, m):
    """Boxes of every kind around an image of 60 x 80: inside, over the border, outside, tiny, inside out."""
    corner, size = jax.random.split(key)
    left_top = jax.random.uniform(corner, (m, 2), minval=-30, maxval=80)
    return jnp.concatenate([left_top, left_top + jax.random.uniform(size, (m, 2), minval=-5, maxval=60)], 1)


@pytest.mark.data
@pytest.mark.parametrize("case", FIXED)
def test_golden_values_of_torchvision(golden_dir, case):
    golden = np.load(golden_dir / "nets/layers.npz")
    settings = json.loads((golden_dir / "nets/nets.json").read_text())["roi_align"][case]
    features = jnp.moveaxis(jnp.array(golden["roi/x"]), 1, -1)
    rois, expected = golden[f"roi/{case}/rois"], golden[f"roi/{case}/out"]
    align = jax.jit(lambda features, boxes: roi_align(
        features, boxes, output_size=tuple(settings["output_hw"]), scale=settings["spatial_scale"],
        sampling=settings["sampling_ratio"], aligned=settings["aligned"]))  # fmt: skip
    assert settings["sampling_ratio"] > 0
    outputs = np.stack([align(image, jnp.array(rois[:, 1:])) for image in features])
    found = outputs[rois[:, 0].astype(int), np.arange(len(rois))]
    np.testing.assert_allclose(np.moveaxis(found, -1, 1), expected, atol=2e-5)


@pytest.mark.parametrize("shape", [(15, 20), (20, 15)])  # either axis is contracted first
@pytest.mark.parametrize("aligned", [True, False])
def test_the_mean_is_the_mean_of_the_bins(key, shape, aligned):
    features, boxes = jax.random.normal(key, (*shape, 3)), _boxes(key, 64)
    options = {"output_size": (4, 3), "scale": 0.25, "sampling": 2, "aligned": aligned}
    bins = jax.jit(lambda f, b: roi_align(f, b, **options))(features, boxes)
    mean = jax.jit(lambda f, b: roi_mean(f, b, **options))(features, boxes)
    assert int(jnp.any(mean != 0, 1).sum()) > 16
    np.testing.assert_allclose(mean, bins.mean((1, 2)), atol=1e-5)


@pytest.mark.parametrize("size", [(2, 5), (5, 2)])
def test_a_ramp_is_sampled_at_the_centres_of_the_bins(size):
    ramp = jnp.stack(jnp.meshgrid(jnp.arange(20.0), jnp.arange(16.0)), -1)
    align = jax.jit(lambda f, b: roi_align(f, b, output_size=size, scale=0.5))
    bins = align(ramp, jnp.array([[4.0, 8.0, 24.0, 28.0]]))[0]
    np.testing.assert_allclose(bins[0, :, 0] + 0.5, 2 + (np.arange(size[1]) + 0.5) * 10 / size[1], rtol=1e-5)
    np.testing.assert_allclose(bins[:, 0, 1] + 0.5, 4 + (np.arange(size[0]) + 0.5) * 10 / size[0], rtol=1e-5)


def test_every_option_changes_the_values(key):
    features, boxes = jax.random.normal(key, (15, 20, 2)), jnp.array([[2.3, 1.7, 9.1, 12.6]])
    base = {"output_size": (2, 2), "scale": 1.0}
    for function in (roi_align, roi_mean):
        function = jax.jit(function, static_argnames=tuple(base) + ("sampling", "aligned"))
        options = ({"scale": 0.25}, {"sampling": 3}, {"aligned": False}, {"output_size": (3, 3)})
        plain = function(features, boxes, **base)
        for option in options:
            changed = function(features, boxes, **(base | option))
            assert changed.shape != plain.shape or float(jnp.abs(changed - plain).max()) > 1e-3, (function, option)


def test_gradients_are_the_finite_differences(key):
    features, boxes = jax.random.normal(key, (6, 8, 2)), jnp.array([[1.3, 0.7, 6.2, 4.9], [-3.2, -2.1, 3.1, 4.2]])
    weights = jax.random.normal(key, (2, 2, 3, 2))
    loss = jax.jit(lambda f, b: jnp.sum(weights * roi_align(f, b, output_size=(2, 3))))
    gradients = jax.jit(jax.grad(loss, (0, 1)))(features, boxes)
    for argument, gradient in enumerate(gradients):
        direction = jax.random.normal(key, gradient.shape)
        step = 0.5 if argument == 0 else 1e-3  # linear in the features; boxes have kinks
        moved = [[x + sign * step * direction if i == argument else x for i, x in enumerate((features, boxes))]
                 for sign in (1, -1)]  # fmt: skip
        slope = (loss(*moved[0]) - loss(*moved[1])) / (2 * step)
        np.testing.assert_allclose(jnp.sum(gradient * direction), slope, rtol=1e-2)
