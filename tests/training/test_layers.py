"""Layers in half precision, and layers that are computed a second time."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_system import clips, config, tiny

from jaxvos.errors import InputError
from jaxvos.system import Clip, LossOutput
from jaxvos.training import fit
from jaxvos.training._layers import compute_in_bfloat16, recompute


@functools.cache
def _start():
    clip = jax.tree.map(jnp.asarray, next(clips(0)))
    return clip, tiny().init(jax.random.key(0), clip)


def _graded(loss, variables=None, clip=None):
    if variables is None or clip is None:
        clip, variables = _start()

    def total(params):
        output = loss({**variables, "params": params}, clip, key=jax.random.key(1), step=0)
        return output.loss, output

    (value, output), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(variables["params"])
    return value, output, gradient


def test_half_precision_is_near_and_what_is_kept_is_not_half():
    loss, output, gradient = _graded(tiny().loss)
    half, half_output, half_gradient = _graded(compute_in_bfloat16(tiny().loss))
    assert 0 < abs(float(half) - float(loss)) < 0.01 * float(loss)
    for path, b in jax.tree_util.tree_leaves_with_path(gradient):
        a = functools.reduce(lambda node, name: node[name.key], path, half_gradient)
        near = 0.15 if path[-1].key == "bias" else 0.05  # a CPU sums what reaches a bias in half precision as well
        assert a.dtype == jnp.float32 and 0 < np.abs(a - b).max() < near * np.abs(b).max() + 1e-3
    state = jax.tree.leaves(half_output.model_state)
    assert {x.dtype for x in (half, *state, *half_output.scalars.values())} == {jnp.dtype("float32")}
    for a, b in zip(state, jax.tree.leaves(output.model_state), strict=True):
        np.testing.assert_allclose(a, b, atol=5e-3)


class _Inner(nn.Module):
    """A convolution, a normalisation, and what a solver would be given."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3), name="conv")(x)
        self.sow("seen", "after_conv", x)
        x = nn.BatchNorm(use_running_average=False, name="norm")(x)
        self.sow("seen", "after_norm", x)
        return x


class _Outer(nn.Module):
    @nn.compact
    def __call__(self, x):
        return _Inner(name="inner")(x)


def test_layers_are_half_and_what_a_net_gives_is_not():
    net, images = _Outer(), jnp.ones((2, 8, 8, 3))
    variables = net.init(jax.random.key(0), images)
    types = {}

    def loss(variables, clip, *, key, step):
        out, state = net.apply(variables, clip.images[:, 0], mutable=["seen", "batch_stats"])
        types.update({name: x[-1].dtype for name, x in state["seen"]["inner"].items()}, out=out.dtype)
        types["kernel"] = variables["params"]["inner"]["conv"]["kernel"].dtype
        types["scale"] = variables["params"]["inner"]["norm"]["scale"].dtype
        return LossOutput(out.mean(), {"batch_stats": state["batch_stats"]}, {})

    compute_in_bfloat16(loss)(variables, Clip(images[:, None]), key=jax.random.key(0), step=0)
    assert types == {"after_conv": jnp.bfloat16, "after_norm": jnp.bfloat16, "out": jnp.float32,
                     "kernel": jnp.bfloat16, "scale": jnp.float32}  # fmt: skip


@pytest.mark.parametrize("patterns", [("encoder",), ("encoder", "no.*"), ("decoder",)], ids=str)
def test_what_is_computed_again_is_the_same(patterns):
    loss = recompute(tiny().loss, patterns)
    for a, b in zip(jax.tree.leaves(_graded(loss)), jax.tree.leaves(_graded(tiny().loss)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    clip, variables = _start()
    text = str(jax.make_jaxpr(lambda v: loss(v, clip, key=jax.random.key(0), step=0).loss)(variables))
    assert text.count("remat2[") == len(patterns), text


def test_both_at_once():
    both, half = (_graded(compute_in_bfloat16(x)) for x in (recompute(tiny().loss, ("encoder",)), tiny().loss))
    for a, b in zip(jax.tree.leaves(both), jax.tree.leaves(half), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3)


def test_an_argument_that_is_no_array_stays_what_it_is():
    class Switch(nn.Module):
        @nn.compact
        def __call__(self, x, train, *, scale):
            return scale * nn.Dense(3, name="dense")(x) if train else x

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return Switch(name="switch")(x, True, scale=2.0)

    net, images = Net(), jnp.ones((1, 1, 4, 4, 3))
    variables = net.init(jax.random.key(0), images)
    loss = lambda variables, clip, *, key, step: LossOutput(net.apply(variables, clip.images).sum(), {}, {})  # noqa: E731
    plain, again = (_graded(x, {"params": variables["params"]}, Clip(images))[0]
                    for x in (loss, recompute(loss, ("switch",))))  # fmt: skip
    assert plain == again != 0


def test_a_module_that_is_not_there_is_named():
    with pytest.raises(InputError, match="'encodr' matches no module; the modules are in: .*decoder, encoder, norm"):
        fit(tiny(), clips, config(num_steps=1, remat=("encodr",)), progress=False)
