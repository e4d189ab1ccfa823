"""The encoder of frames with masks: sizes, parameters, and what its options leave out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvos.nets import FrameMaskEncoder

SIZE = (32, 48)


def _shapes(net, size, *, masks=1, width=512):
    y, x = (-(-side // net.stride) for side in size)
    arrays = jnp.zeros((*size, 3)), jnp.zeros((*size, masks)), jnp.zeros((y, x, width))
    found, variables = jax.eval_shape(net.init_with_output, jax.random.key(0), *arrays)
    return found.shape, variables["params"]


def _count(tree):
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(tree))


@pytest.mark.parametrize("size", [(480, 856), (36, 52)])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "efficientnet_lite0"])
@pytest.mark.parametrize("stride", [8, 16])
def test_values_at_the_stride_that_was_asked_for(name, fused, stride, size):
    net = FrameMaskEncoder(name, features=512, stride=stride, fused=fused)
    assert _shapes(net, size)[0] == (*(-(-side // stride) for side in size), 512)


def test_sizes_of_the_published_forms():
    """Of the paper 11.4 million parameters (ResNet-18, one more input, 1x1 to 512), of the code about 17.0."""
    plain, fused = (_shapes(FrameMaskEncoder("resnet18", stride=8, fused=x), (64, 64))[1] for x in (False, True))
    assert _count(plain) == 11_176_512 + 64 * 49 + 512 * 512 + 512
    assert _count(fused) == pytest.approx(17.0e6, rel=0.01)
    assert "layer4_0" in plain["encoder"] and "layer4_0" not in fused["encoder"]
    assert "fuser" not in plain and "value" not in fused


@functools.cache
def _answer(fused, stride=8):
    """With and without the mask, and with other features of the frame."""
    net = FrameMaskEncoder("resnet18", width=2, features=4, stride=stride, fused=fused)
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.random(shape), jnp.float32)  # noqa: E731
    image, mask, features = draw(*SIZE, 3), draw(*SIZE, 1), draw(*(side // stride for side in SIZE), 6)
    variables = jax.jit(net.init)(jax.random.key(0), image, mask, features)
    apply = jax.jit(net.apply)
    return [np.asarray(apply(variables, image, *other)) for other in (
        (mask, features), (0 * mask, features), (mask, 0 * features))]  # fmt: skip


@pytest.mark.parametrize("fused", [False, True])
def test_what_a_value_depends_on(fused):
    """On the mask, and on the features of the frame only where they are fused."""
    value, without_mask, without_features = _answer(fused)
    assert np.abs(value - without_mask).max() > 1e-4
    assert (np.abs(value - without_features).max() > 1e-4) == fused
