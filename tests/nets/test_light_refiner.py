"""The light refiner against the equations written out, and what each of its options changes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvos.nets import ConvLSTMState, LightRefiner
from jaxvos.ops import resize

SIZE = (63, 112)
WIDTHS = (4, 3, 3, 2)
SKIPS = {5: (2, 4, 4), 4: (4, 7, 4), 3: (8, 14, 3), 2: (16, 28, 2)}
OPTIONS = {
    "average": LightRefiner(WIDTHS),
    "stack": LightRefiner(WIDTHS, mask_fusion="stack"),
    "rvos": LightRefiner(WIDTHS, recurrence="rvos"),
}


def _normal(seed, shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def _masks(seed):
    return jnp.asarray(np.random.default_rng(seed).uniform(size=(3, *SIZE)) ** 40, jnp.float32)


def _state(seed):
    shapes = [(*SKIPS[stage][:2], width) for stage, width in zip((5, 4, 3, 2), WIDTHS, strict=True)]
    return tuple(ConvLSTMState(0.5 * _normal(seed, s), 0.5 * _normal(seed + 1, s)) for s in shapes)


IMAGE = _normal(0, (*SIZE, 3))
FEATURES = {stage: _normal(stage, shape) for stage, shape in SKIPS.items()}


@functools.cache
def _variables(option):
    refiner = OPTIONS[option]
    arguments = (IMAGE, FEATURES, _masks(0), (), refiner.initial_state(FEATURES))
    shapes = jax.eval_shape(refiner.init, jax.random.key(1), *arguments)
    leaves = enumerate(jax.tree.leaves(shapes))  # drawn here: nothing is compiled
    values = [0.3 * _normal(i, leaf.shape) for i, leaf in leaves]
    return jax.tree.unflatten(jax.tree.structure(shapes), values)


@functools.cache
def _compiled(option):
    variables = _variables(option)

    def run(masks, state, **spatial):
        return OPTIONS[option].apply(variables, IMAGE, FEATURES, masks, (), state, **spatial)

    return jax.jit(run)


def _changed(a, b):
    return float(jnp.abs(a - b).max()) > 1e-4


def _pooled(mask, stride):
    rows, columns = (-(-n // stride) for n in mask.shape)
    windows = [[mask[y * stride : (y + 1) * stride, x * stride : (x + 1) * stride].max() for x in range(columns)]
               for y in range(rows)]  # fmt: skip
    return np.array(windows, np.float32)


def _convolve(x, kernel):
    return jax.lax.conv_general_dilated(x[None], kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))[0]


@jax.jit
def _written_out(pooled, state):
    """Three explicit passes on each level, each one convolution of everything side by side (sheet, section 7)."""
    params, above, after = _variables("average")["params"], None, []
    for stage, old in zip((5, 4, 3, 2), state, strict=True):
        lstm, passes = params[f"lstm_{stage}"], []
        for mask in pooled[stage]:
            parts = {"skip": FEATURES[stage], "mask": mask[..., None], "hidden": old.hidden}
            parts |= {"above": resize(above, SKIPS[stage][:2])} if above is not None else {}
            x = jnp.concatenate([parts[name] for name in parts], axis=-1)
            kernel = jnp.concatenate([lstm[name]["kernel"] for name in parts], axis=2)
            i, f, o, g = jnp.split(_convolve(x, kernel) + lstm["hidden"]["bias"], 4, axis=-1)
            cell = jax.nn.sigmoid(f) * old.cell + jax.nn.sigmoid(i) * jnp.tanh(g)
            passes.append((jax.nn.sigmoid(o) * jnp.tanh(cell), cell))
        above = sum(hidden for hidden, _ in passes) / 3
        after.append((above, sum(cell for _, cell in passes) / 3))
    x = _convolve(resize(above, (32, 56)), params["head"]["kernel"]) + params["head"]["bias"]
    return resize(x, SIZE)[..., 0], after


def test_averaging_is_three_explicit_passes():
    logits, after = _compiled("average")(_masks(0), _state(7))
    pooled = {stage: [_pooled(mask, 2**stage) for mask in np.asarray(_masks(0))] for stage in SKIPS}
    expected, states = _written_out(pooled, _state(7))
    assert logits.shape == SIZE
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    for level, (hidden, cell) in zip(after, states, strict=True):
        np.testing.assert_allclose(level.hidden, hidden, atol=1e-5)
        np.testing.assert_allclose(level.cell, cell, atol=1e-5)


def test_the_order_of_the_masks_matters_to_stacking_alone():
    masks, state = _masks(0), _state(7)
    ordered, reversed_ = (_compiled("average")(m, state)[0] for m in (masks, masks[::-1]))
    np.testing.assert_allclose(ordered, reversed_, atol=1e-5)
    assert _changed(*(_compiled("stack")(m, state)[0] for m in (masks, masks[::-1])))


@pytest.mark.parametrize("option", OPTIONS)
def test_every_mask_and_the_state_of_the_frame_before_change_the_output(option):
    run, masks, state = _compiled(option), _masks(0), _state(7)
    logits, after = run(masks, state)
    for i in range(3):
        assert _changed(logits, run(masks.at[i].set(0), state)[0])
    assert _changed(logits, run(masks, OPTIONS[option].initial_state(FEATURES))[0])
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)


def test_rvos_sees_the_object_before_and_of_the_frame_before_the_hidden_state_only():
    run, masks, state, spatial = _compiled("rvos"), _masks(0), _state(7), _state(9)
    logits, _ = run(masks, state, spatial=spatial)
    first, _ = run(masks, state)
    np.testing.assert_array_equal(first, run(masks, state, spatial=OPTIONS["rvos"].initial_state(FEATURES))[0])
    assert _changed(logits, first)
    for field, seen in (("hidden", True), ("cell", False)):
        other = tuple(level._replace(**{field: jnp.zeros_like(level.cell)}) for level in state)
        assert _changed(logits, run(masks, other, spatial=spatial)[0]) is seen
    for field in ("hidden", "cell"):
        other = tuple(level._replace(**{field: jnp.zeros_like(level.cell)}) for level in spatial)
        assert _changed(logits, run(masks, state, spatial=other)[0])
    with pytest.raises(ValueError, match="no use for the spatial state"):
        _compiled("average")(masks, state, spatial=spatial)


def test_objects_side_by_side_are_objects_one_by_one_and_skips_are_convolved_once():
    masks, states = [_masks(0), _masks(1)], [_state(7), _state(9)]
    both = jax.vmap(_compiled("average"))
    stacked = jnp.stack(masks), jax.tree.map(lambda *x: jnp.stack(x), *states)
    one_by_one = [_compiled("average")(*each) for each in zip(masks, states, strict=True)]
    jax.tree.map(lambda a, *b: np.testing.assert_allclose(a, jnp.stack(b), atol=1e-5), both(*stacked), *one_by_one)

    jaxpr = jax.make_jaxpr(both)(*stacked).jaxpr.eqns[0].params["jaxpr"].jaxpr
    convolutions = [e for e in jaxpr.eqns if e.primitive.name == "conv_general_dilated"]
    batches = {  # batch of the convolution with each kernel, the kernels told by their channels
        batch: sum(e.invars[0].aval.shape[0] == batch for e in convolutions) for batch in (1, 2, 6)
    }
    assert batches == {1: 4, 2: 4 + 3 + 1, 6: 4}  # skips; hidden, coarser level, head; masks
