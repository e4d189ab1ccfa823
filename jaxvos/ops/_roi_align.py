"""RoIAlign as products of matrices: bilinear sampling is separable, and so is its average over a box."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

__all__ = ["roi_align", "roi_mean"]


def roi_align(
    features: Float[Array, "h w c"],
    boxes: Float[Array, "m 4"],
    *,
    output_size: tuple[int, int],
    scale: float = 1.0,
    sampling: int = 2,
    aligned: bool = True,
) -> Float[Array, "m y x c"]:
    """Samples features on a grid in each box and averages the samples of each bin (He et al. 2017, section 3).

    Equal to `torchvision.ops.roi_align` with `sampling_ratio=sampling`: a sample more than one cell outside the
    features is zero and counts in the average, one nearer than that takes the value of the border. torchvision's
    adaptive `sampling_ratio=0` has no counterpart: it takes more samples in a larger box, so its shapes depend on the
    data. Boxes meet whole rows and columns of the features in matrix products of float32; the numbers in between are
    `m * min(h x, w y) * c`.

    Args:
      features: one level of features.
      boxes: in pixels of the image.
      output_size: bins per box, vertically and horizontally.
      scale: cells of the features per pixel of the image, 1 / stride.
      sampling: samples per bin along each axis, at least 1.
      aligned: the centre of the first cell lies at 0.5 (True); or at 0, and boxes count as at least one cell wide
        and high, as in Detectron and torchvision's detectors (False).
    """
    (h, w, _), (y, x) = features.shape, output_size
    left, top, right, bottom = boxes.T.astype(jnp.float32) * scale
    rows = _weights(top, bottom, y, h, sampling, aligned)
    columns = _weights(left, right, x, w, sampling, aligned)
    if h * x <= w * y:
        return _product("myh,mhxc->myxc", rows, _product("mxw,hwc->mhxc", columns, features))
    return _product("mxw,mywc->myxc", columns, _product("myh,hwc->mywc", rows, features))


def roi_mean(
    features: Float[Array, "h w c"],
    boxes: Float[Array, "m 4"],
    *,
    scale: float,
    output_size: tuple[int, int] = (14, 14),
    sampling: int = 2,
    aligned: bool = True,
) -> Float[Array, "m c"]:
    """Averages `roi_align` over its bins, one vector per box, without ever making the bins.

    The average of separable weights is separable: one row of weights per box and axis is enough (DMM-Net's pooling of
    proposals, there 14 x 14 bins).

    Args:
      features: one level of features.
      boxes: in pixels of the image.
      scale: cells of the features per pixel of the image, 1 / stride.
      output_size: bins per box, vertically and horizontally.
      sampling: samples per bin along each axis, at least 1.
      aligned: as in `roi_align`.
    """
    (h, w, _), (y, x) = features.shape, output_size
    left, top, right, bottom = boxes.T.astype(jnp.float32) * scale
    row = _weights(top, bottom, y, h, sampling, aligned).mean(1)
    column = _weights(left, right, x, w, sampling, aligned).mean(1)
    if h <= w:
        return _product("mh,mhc->mc", row, _product("mw,hwc->mhc", column, features))
    return _product("mw,mwc->mc", column, _product("mh,hwc->mwc", row, features))


def _weights(
    start: Float[Array, "m"], end: Float[Array, "m"], num_bins: int, n: int, sampling: int, aligned: bool
) -> Float[Array, "m bins n"]:
    """Returns the weight of each of n cells in each bin along one axis."""
    shift = 0.5 if aligned else 0.0
    length = end - start if aligned else jnp.maximum(end - start, 1.0)
    share = (jnp.arange(num_bins * sampling) + 0.5) / (num_bins * sampling)
    position = start[:, None] - shift + share * length[:, None]
    inside = (position >= -1) & (position <= n)
    position = jnp.clip(position, 0, n - 1)[..., None]
    bilinear = jnp.maximum(1 - jnp.abs(position - jnp.arange(n)), 0) * inside[..., None]
    return bilinear.reshape(len(start), num_bins, sampling, n).mean(2)


def _product(subscripts: str, a: Array, b: Array) -> Array:
    return jnp.einsum(subscripts, a, b, precision=lax.Precision.HIGHEST)
