"""The local cost volume of flow networks."""

import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["correlation"]

_BLOCK = 16  # columns that are multiplied together with all their neighbours


def correlation(f1: Float[Array, "h w c"], f2: Float[Array, "h w c"], *, radius: int = 4) -> Float[Array, "h w d"]:
    """Compares each position with those of the other map around it: `d = (2 radius + 1)^2` mean products.

    Channel `(dy + radius) (2 radius + 1) + dx + radius` holds `mean_c f1[y, x, c] f2[y + dy, x + dx, c]`; beyond the
    border lie zeros.

    Computed as matrix products of blocks of a row with the rows around it, of which the diagonals that lie near
    enough are kept: on a CPU faster than 81 sums of shifted products, and sooner compiled.

    Source: Sun et al., "PWC-Net" (CVPR 2018), Eq. 3.
    """
    h, w, c = f1.shape
    side = 2 * radius + 1
    blocks = -(-w // _BLOCK)
    missing = blocks * _BLOCK - w
    f1 = jnp.pad(f1, ((0, 0), (0, missing), (0, 0))).reshape(h, blocks, _BLOCK, c)
    f2 = jnp.pad(f2, ((radius, radius), (radius, radius + missing), (0, 0)))
    near = _BLOCK * jnp.arange(blocks)[:, None] + jnp.arange(_BLOCK + 2 * radius)
    f2 = jnp.stack([f2[dy : dy + h, near] for dy in range(side)])
    products = jnp.einsum("ynic,dynjc->yndij", f1, f2) / c
    flat = products.reshape(h, blocks, side, -1)  # row i of a block starts i places too early: skew it
    flat = jnp.pad(flat, ((0, 0), (0, 0), (0, 0), (0, _BLOCK)))
    skewed = flat.reshape(h, blocks, side, _BLOCK, _BLOCK + 2 * radius + 1)[..., :side]
    return jnp.moveaxis(skewed, 2, 3).reshape(h, blocks * _BLOCK, side * side)[:, :w]
