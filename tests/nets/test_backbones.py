"""Encoders at stride 8: sizes, widths and parameters. Shapes alone, nothing is computed, but for thin nets."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvos.nets import backbone, run_to_stride8


class _Stride8(nn.Module):
    name_of: str
    width: int = 64
    deepest: bool = True

    def setup(self):
        self.encoder = backbone(self.name_of, width=self.width, stride8=True)

    def __call__(self, images, train=False, extra=None):
        return run_to_stride8(self.encoder, images, train=train, deepest=self.deepest, extra=extra)


def _shapes(net, size):
    found = jax.eval_shape(net.init_with_output, jax.random.key(0), jnp.zeros((1, *size, 3)))
    return found[0], found[1]["params"]["encoder"]


CASES = [  # channels at the top, of the skips at strides 8 and 4, and parameters
    ("resnet18", True, (512, 256, 64), 11_176_512),
    ("resnet18", False, (256, 256, 64), 2_782_784),
    ("resnet34", True, (512, 256, 64), 21_284_672),
    ("resnet50", True, (1024, 512, 256), 8_543_296),
    ("resnet50", False, (1024, 512, 256), 8_543_296),
    ("efficientnet_lite0", True, (40 + 112, 40, 24), None),
]


@pytest.mark.parametrize("size", [(256, 256), (480, 856), (36, 52)])
@pytest.mark.parametrize(("name", "deepest", "channels", "count"), CASES)
def test_features_at_stride_8(name, deepest, channels, count, size):
    look, params = _shapes(_Stride8(name, deepest=deepest), size)
    maps = tuple(-(-side // 8) for side in size), tuple(-(-side // 4) for side in size)
    assert [x.shape for x in (look.top, *look.skips)] == [
        (1, *maps[0], channels[0]), (1, *maps[0], channels[1]), (1, *maps[1], channels[2])]  # fmt: skip
    if count is not None:
        assert sum(int(np.prod(x.shape)) for x in jax.tree.leaves(params)) == count


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_a_kept_size_changes_no_parameter(name):
    trees = [jax.eval_shape(backbone(name, stride8=kept).init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
             for kept in (False, True)]  # fmt: skip
    assert trees[0] == trees[1]


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0"])
def test_the_top_sees_what_the_skips_see(name, key):
    """The skips are stages of the same net, the top is computed from them, and EfficientNet's own begins with one."""
    net, images = _Stride8(name, width=2), jax.random.uniform(key, (1, 32, 48, 3))
    variables = jax.tree.map(jnp.asarray, _random(jax.eval_shape(net.init, key, images)))
    look = net.apply(variables, images)
    assert all(np.isfinite(x).all() and np.ptp(x) > 0 for x in jax.tree.leaves(look))
    if name == "efficientnet_lite0":
        np.testing.assert_array_equal(look.top[..., : look.skips[0].shape[-1]], look.skips[0])
    shallow = _Stride8(name, width=2, deepest=False).apply(variables, images)
    np.testing.assert_array_equal(shallow.skips[0], look.skips[0])
    if name == "resnet18":  # one stage less: its top is the skip
        np.testing.assert_array_equal(shallow.top, look.skips[0])
    extra = jnp.ones((1, 16, 24, net.bind(variables).encoder.first["features"]))
    other = net.apply(variables, images, extra=extra)
    assert np.abs(other.top - look.top).max() > 1e-4


def test_training_normalises_by_the_batch(key):
    net, images = _Stride8("resnet18", width=2), jax.random.uniform(key, (2, 16, 24, 3))
    variables = jax.tree.map(jnp.asarray, _random(jax.eval_shape(net.init, key, images)))
    look, state = net.apply(variables, images, train=True, mutable=["batch_stats"])
    assert np.abs(look.top - net.apply(variables, images).top).max() > 1e-3
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max() > 0, state["batch_stats"], variables["batch_stats"])
    assert all(jax.tree.leaves(moved))


def _random(shapes):
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if path[-1].key == "kernel":
            return rng.normal(0, np.prod(leaf.shape[:-1]) ** -0.5, leaf.shape).astype(np.float32)
        return np.full(leaf.shape, path[-1].key in ("scale", "var"), np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)
