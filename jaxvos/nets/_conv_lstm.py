"""A recurrent cell with convolutions for gates (Shi et al. 2015)."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["ConvLSTM", "ConvLSTMState"]


class ConvLSTMState(NamedTuple):
    """What a `ConvLSTM` carries from one step to the next."""

    hidden: Float[Array, "*b h w d"]  # its output, too
    cell: Float[Array, "*b h w d"]


class ConvLSTM(nn.Module):
    """Convolutional LSTM whose gates see several named inputs next to the hidden state.

    The gates are one 3x3 convolution of everything side by side, computed as the sum of one convolution for each
    input: what is the same for several cells that run side by side (under `jax.vmap`, or along leading axes) is
    convolved once. The kernels are named by their inputs, and that of the hidden state, `hidden`, has the bias; all
    are drawn as parts of the one large kernel. Output channels are input gate, forget gate, output gate, candidate.

    Attributes:
      features: channels of the state.
    """

    features: int

    @nn.compact
    def __call__(self, inputs: dict[str, Float[Array, "... h w _c"]], state: ConvLSTMState) -> ConvLSTMState:
        """One step; leading axes of the inputs and of the state are broadcast against one another."""
        parts = {**inputs, "hidden": state.hidden}
        fan_in = 9 * sum(part.shape[-1] for part in parts.values())
        kernel_init = nn.initializers.normal(fan_in**-0.5)
        gates = sum(
            nn.Conv(4 * self.features, (3, 3), use_bias=name == "hidden", kernel_init=kernel_init, name=name)(part)
            for name, part in parts.items()
        )
        i, f, o, g = jnp.split(gates, 4, axis=-1)
        cell = jax.nn.sigmoid(f) * state.cell + jax.nn.sigmoid(i) * jnp.tanh(g)
        return ConvLSTMState(jax.nn.sigmoid(o) * jnp.tanh(cell), cell)
