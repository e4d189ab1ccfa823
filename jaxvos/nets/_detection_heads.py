"""The heads of Mask R-CNN (He et al. 2017, with the feature pyramid): regions, boxes, masks."""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["BoxHead", "MaskHead", "RegionHead"]

_conv3x3 = partial(nn.Conv, kernel_size=(3, 3), padding=1)
_dense = partial(nn.Dense, kernel_init=nn.initializers.he_normal())


class RegionHead(nn.Module):
    """Scores and moves the anchors at every pixel of a level; all levels share its parameters.

    Attributes:
      num_anchors: anchors per pixel.
    """

    num_anchors: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> tuple[Float[Array, "b n"], Float[Array, "b n 4"]]:
        """Returns logits and box deltas of the `n = h * w * num_anchors` anchors, row by row, pixel by pixel."""
        init = nn.initializers.normal(0.01)
        x = nn.relu(_conv3x3(x.shape[-1], kernel_init=init, name="conv")(x))
        logits = nn.Conv(self.num_anchors, (1, 1), kernel_init=init, name="cls_logits")(x)
        deltas = nn.Conv(4 * self.num_anchors, (1, 1), kernel_init=init, name="bbox_pred")(x)
        return logits.reshape(len(x), -1), deltas.reshape(len(x), -1, 4)


class BoxHead(nn.Module):
    """Classifies a region, and moves its box for each class; class 0 is the background.

    Attributes:
      num_classes: classes, background included.
      width: of the two hidden layers.
    """

    num_classes: int
    width: int = 1024

    @nn.compact
    def __call__(self, x: Float[Array, "m y x c"]) -> tuple[Float[Array, "m n"], Float[Array, "m n 4"]]:
        x = nn.relu(_dense(self.width, name="fc6")(x.reshape(len(x), -1)))
        x = nn.relu(_dense(self.width, name="fc7")(x))
        logits = nn.Dense(self.num_classes, kernel_init=nn.initializers.normal(0.01), name="cls_score")(x)
        deltas = nn.Dense(4 * self.num_classes, kernel_init=nn.initializers.normal(0.001), name="bbox_pred")(x)
        return logits, deltas.reshape(len(x), -1, 4)


class MaskHead(nn.Module):
    """Draws the mask of a region for each class, at twice the size of its features.

    Attributes:
      num_classes: classes, background included.
      width: of the hidden layers.
      layers: 3x3 convolutions before the doubling.
    """

    num_classes: int
    width: int = 256
    layers: int = 4

    @nn.compact
    def __call__(self, x: Float[Array, "m y x c"]) -> Float[Array, "m v u n"]:
        for i in range(self.layers):
            x = nn.relu(_conv3x3(self.width, kernel_init=nn.initializers.he_normal(), name=f"mask_fcn{i + 1}")(x))
        x = nn.relu(_Doubling(self.width, name="conv5_mask")(x))
        return nn.Conv(self.num_classes, (1, 1), kernel_init=nn.initializers.normal(0.01), name="mask_fcn_logits")(x)


class _Doubling(nn.Module):
    """A 2x2 convolution transposed, stride 2: every pixel becomes four, each by its own matrix."""

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "m y x c"]) -> Float[Array, "m v u d"]:
        init = nn.initializers.variance_scaling(2.0, "fan_in", "truncated_normal", in_axis=-2, out_axis=-1,
                                                batch_axis=(0, 1))  # fmt: skip
        kernel = self.param("kernel", init, (2, 2, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        m, h, w, _ = x.shape
        return jnp.einsum("myxc,ijcd->myixjd", x, kernel).reshape(m, 2 * h, 2 * w, -1) + bias
