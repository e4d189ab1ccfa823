"""The ConvLSTM cell against golden values of PyTorch cells, which convolve everything side by side."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvos.nets import ConvLSTM, ConvLSTMState


@pytest.mark.data
@pytest.mark.parametrize("kind", ["plain", "rvos"])
def test_four_steps_equal_the_golden_values(golden_dir, kind):
    with np.load(golden_dir / "nets" / "layers.npz") as arrays:
        golden = {key: array for key, array in arrays.items() if "convlstm" in key}
    kernel = golden[f"convlstm_{kind}/weight"].transpose(2, 3, 1, 0)
    x, hidden, *temporal = np.split(kernel, np.cumsum([4, 6])[: 1 + (kind == "rvos")], axis=2)
    params = {"x": {"kernel": x}, "hidden": {"kernel": hidden, "bias": golden[f"convlstm_{kind}/bias"]}}
    params |= {"temporal": {"kernel": temporal[0]}} if temporal else {}
    images = {"x": golden["convlstm/x"]}
    images |= {"temporal": golden["convlstm_rvos/hidden_temporal"]} if temporal else {}
    images = {name: value.transpose(0, 1, 3, 4, 2) for name, value in images.items()}  # of 4 steps and a batch of 2

    def step(state, inputs):
        state = ConvLSTM(6).apply({"params": params}, inputs, state)
        return state, state

    zeros = jnp.zeros((2, 5, 7, 6))
    _, states = jax.lax.scan(step, ConvLSTMState(zeros, zeros), images)
    np.testing.assert_allclose(states.hidden.transpose(0, 1, 4, 2, 3), golden[f"convlstm_{kind}/h"], atol=1e-5)
    np.testing.assert_allclose(states.cell.transpose(0, 1, 4, 2, 3), golden[f"convlstm_{kind}/c"], atol=1e-5)


def test_kernels_are_drawn_as_parts_of_one(key):
    zeros = jnp.zeros((2, 2, 8))
    inputs = {"wide": jnp.zeros((2, 2, 87)), "mask": jnp.zeros((2, 2, 1))}
    params = ConvLSTM(8).init(key, inputs, ConvLSTMState(zeros, zeros))["params"]
    assert [name for name in params if "bias" in params[name]] == ["hidden"]
    for name in ("wide", "mask", "hidden"):
        np.testing.assert_allclose(params[name]["kernel"].std() * np.sqrt(9 * 96), 1, atol=0.2)


def test_inputs_without_the_leading_axis_are_broadcast_and_convolved_once(key):
    skip, masks = jax.random.normal(key, (4, 5, 3)), jax.random.uniform(key, (3, 4, 5, 1))
    state = ConvLSTMState(*jax.random.normal(key, (2, 4, 5, 2)))
    cell = ConvLSTM(2)
    variables = cell.init(key, {"skip": skip, "mask": masks[0]}, state)

    def together(skip, masks):
        return cell.apply(variables, {"skip": skip, "mask": masks}, state)

    jaxpr = jax.make_jaxpr(together)(skip, masks)
    batches = [e.invars[0].aval.shape[0] for e in jaxpr.jaxpr.eqns if e.primitive.name == "conv_general_dilated"]
    assert sorted(batches) == [1, 1, 3]
    one_by_one = [together(skip, mask) for mask in masks]
    jax.tree.map(lambda a, *b: np.testing.assert_allclose(a, jnp.stack(b), atol=1e-6),
                 together(skip, masks), *one_by_one)  # fmt: skip
