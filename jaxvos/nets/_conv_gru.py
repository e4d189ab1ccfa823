"""The recurrent cell of XMem's sensory memory."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["ConvGRU"]


class ConvGRU(nn.Module):
    """Forget gate `f`, update gate `u` and candidate `n` from one 3x3 convolution: `h' = f h (1 - u) + u n`.

    The candidate sees the state as it is, not reset as in a GRU proper (XMem's released code).
    """

    @nn.compact
    def __call__(self, x: Float[Array, "h w c"], state: Float[Array, "h w d"]) -> Float[Array, "h w d"]:
        gates = nn.Conv(3 * state.shape[-1], (3, 3), kernel_init=nn.initializers.xavier_normal(), name="transform")(
            jnp.concatenate([x, state], axis=-1)
        )
        f, u, n = jnp.split(gates, 3, axis=-1)
        f, u = jax.nn.sigmoid(f), jax.nn.sigmoid(u)
        return f * state * (1 - u) + u * jnp.tanh(n)
