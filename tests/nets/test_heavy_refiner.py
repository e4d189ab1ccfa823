"""The heavy refiner: what it looks at, its sizes, and that all of it learns."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvos.errors import InputError
from jaxvos.nets import HeavyRefiner, ResNet

SIZE = (63, 112)
REFINER = HeavyRefiner("resnet18", backbone_width=4, width=6)


def _draw(seed):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=(*SIZE, 3)), jnp.float32), jnp.asarray(rng.uniform(size=(3, *SIZE)), jnp.float32)


def _whole(refiner, image, masks, first, template):
    return refiner(image, {}, masks, refiner.reference(first, template), refiner.initial_state({}))


def _drawn(path, leaf):
    rng = np.random.default_rng(len(str(path)) + leaf.size)
    if path[-1].key == "kernel":
        return rng.normal(0, np.prod(leaf.shape[:-1]) ** -0.5, leaf.shape).astype(np.float32)
    return rng.uniform(0.5, 1, leaf.shape).astype(np.float32)


@functools.cache
def _variables():
    """Drawn by NumPy: nothing is compiled."""
    (image, masks), init = _draw(0), functools.partial(REFINER.init, method=_whole)
    shapes = jax.eval_shape(init, jax.random.key(1), image, masks, image, masks[1])
    return jax.tree_util.tree_map_with_path(_drawn, shapes)


@jax.jit
def _apply(variables, image, masks, first, template):
    def total(params):
        (logits, state), updates = REFINER.apply({**variables, "params": params}, image, masks, first, template,
                                                 method=_whole, mutable=["batch_stats"])  # fmt: skip
        assert state == ()
        return jnp.sum(jnp.sin(logits)), (logits, updates["batch_stats"])

    return jax.grad(total, has_aux=True)(variables["params"])


def _run(*inputs):
    return _apply(_variables(), *inputs)[1][0]


def test_it_looks_at_frame_and_matched_mask_and_at_the_first_frame_and_template():
    (image, masks), (first, others) = _draw(0), _draw(1)
    logits = _run(image, masks, first, others[1])
    assert logits.shape == SIZE
    for changed in (
        (image[::-1], masks, first, others[1]),
        (image, masks.at[2].set(0), first, others[1]),
        (image, masks, first[::-1], others[1]),
        (image, masks, first, jnp.zeros(SIZE)),
    ):
        assert jnp.abs(_run(*changed) - logits).max() > 1e-3
    np.testing.assert_array_equal(_run(image, masks.at[:2].set(0), first, others[1]), logits)


def test_a_gradient_reaches_every_parameter_and_no_statistics_change():
    image, masks = _draw(0)
    gradients, (_, statistics) = _apply(_variables(), image, masks, image, masks[1])
    gradients = jax.tree_util.tree_leaves_with_path(gradients)
    assert [jax.tree_util.keystr(path) for path, g in gradients if not jnp.abs(g).max() > 0] == []
    jax.tree.map(np.testing.assert_array_equal, statistics, _variables()["batch_stats"])


def test_what_is_added_to_the_stem_enters_before_its_normalisation():
    net, image = ResNet(18, 4), _draw(0)[0][None, :31, :33]
    extra = jnp.asarray(np.random.default_rng(2).normal(size=(1, 16, 17, 4)), jnp.float32)
    params = net.init(jax.random.key(0), image, train=False, method="stem")["params"]
    statistics = {"bn1": {"mean": jnp.full(4, 0.3), "var": jnp.full(4, 2.0)}}
    variables = {"params": params, "batch_stats": statistics}
    stem = functools.partial(net.apply, variables, image, train=False, method="stem")
    convolved = net.bind({"params": params}).conv1(image)
    normalised = jax.nn.relu((convolved + extra - 0.3) / np.sqrt(2 + 1e-5))
    padded = np.pad(normalised[0], ((1, 2), (1, 2), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(0, 1))[::2, ::2]
    np.testing.assert_allclose(stem(extra=extra)[0], windows.max((-2, -1))[:8, :9], atol=1e-5)
    np.testing.assert_array_equal(stem(), stem(extra=jnp.zeros_like(extra)))
    assert jnp.abs(stem() - stem(extra=extra)).max() > 0.1


def test_an_encoder_without_a_mask_input_is_refused(key):
    image, masks = _draw(0)
    with pytest.raises(InputError, match="needs a ResNet, not efficientnet_lite0"):
        jax.eval_shape(functools.partial(HeavyRefiner("efficientnet_lite0").init, method=_whole),
                       key, image, masks, image, masks[1])  # fmt: skip
