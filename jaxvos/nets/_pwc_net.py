"""PWC-Net: optical flow from a pyramid of features, warped and correlated level by level (Sun et al., CVPR 2018)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxvos.nets._flow_output import FlowOutput
from jaxvos.nets._up_conv import UpConv
from jaxvos.ops import correlation, resize, warp, warp_coverage

__all__ = ["PWCNet"]

_LEVELS = (6, 5, 4, 3, 2)
_INSIDE = 0.9999  # of what is fetched must lie within the frame
_CONTEXT = ((128, 1), (128, 2), (128, 4), (96, 8), (64, 16), (32, 1))  # published widths, and dilations


class PWCNet(nn.Module):
    """Flow from one image to another, from a 64th of the size to a quarter.

    Modules are named as in the published PyTorch state dict, so that `pwc_net_from_torch` can convert one.

    Attributes:
      widths: channels of the six levels of features.
      decoder_widths: channels of the convolutions that estimate the flow of a level.
      dense: give each of these all that those before it saw, as published; else its predecessor's result alone.
      context_scale: channels of the dilated convolutions that refine the last level, relative to the published; 0
        leaves them out.
      radius: of the correlation.
      injected: levels that get maps of another net, as in `FlowNetS`; what is predicted alone sees them.
      normalize: give the channels of both maps zero mean and unit variance before they are correlated, which is not
        published with this net (Jonschkowski et al., ECCV 2020): it learns from scratch far sooner.
    """

    widths: tuple[int, ...] = (16, 32, 64, 96, 128, 196)
    decoder_widths: tuple[int, ...] = (128, 128, 96, 64, 32)
    dense: bool = True
    context_scale: float = 1.0
    radius: int = 4
    normalize: bool = False
    injected: tuple[int, ...] = ()

    @nn.compact
    def __call__(
        self,
        image: Float[Array, "b h w 3"],
        other: Float[Array, "b h w 3"],
        *,
        extra: dict[int, Array] | None = None,
    ) -> FlowOutput:
        """Returns the flow of levels 6 to 2, and what it is predicted from.

        Args:
          image: in [0, 1]; height and width must be multiples of 64.
          other: the image that the flow leads to.
          extra: of the injected levels, maps of any size and number of channels.
        """
        pyramid = self._features(jnp.concatenate([image, other]))
        halves = {level: jnp.split(x, 2) for level, x in pyramid.items()}
        flows, features = {}, {}
        up_flow = up_features = None
        for level in _LEVELS:
            c1, c2 = halves[level]
            if up_flow is not None:
                c2 = jax.vmap(_warp_inside)(c2, up_flow * (20.0 / 2**level))
            f1, f2 = _normalized(c1, c2) if self.normalize else (c1, c2)
            cost = jax.vmap(lambda f1, f2: correlation(f1, f2, radius=self.radius))(f1, f2)
            x = _leaky(cost)
            if up_flow is not None:
                x = jnp.concatenate([x, c1, up_flow, up_features], axis=-1)
            for index, width in enumerate(self.decoder_widths):
                y = _leaky(_conv(width, name=f"conv{level}_{index}")(x))
                x = jnp.concatenate([y, x], axis=-1) if self.dense else y
            features[level] = x
            flow = _conv(2, name=f"predict_flow{level}")(x)
            if level in self.injected:
                added = resize((extra or {})[level], x.shape[1:3])
                flow = flow + _conv(2, name=f"predict_extra_{level}", extra=True)(added)
            if level > _LEVELS[-1]:
                up_flow = UpConv(2, name=f"deconv{level}")(flow)
                up_features = UpConv(2, name=f"upfeat{level}")(x)
            elif self.context_scale > 0:
                flow = flow + self._context(x)
            flows[level] = flow
        return FlowOutput(flows, features)

    def _features(self, x: Float[Array, "b h w 3"]) -> dict[int, Array]:
        pyramid = {}
        for level, width in enumerate(self.widths, start=1):
            first, second = ("aa", "a") if level == 6 else ("a", "aa")  # named so as published
            x = _leaky(_conv(width, stride=2, name=f"conv{level}{first}")(x))
            x = _leaky(_conv(width, name=f"conv{level}{second}")(x))
            pyramid[level] = x = _leaky(_conv(width, name=f"conv{level}b")(x))
        return pyramid

    def _context(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w 2"]:
        for index, (width, dilation) in enumerate(_CONTEXT, start=1):
            x = _leaky(_conv(max(1, round(self.context_scale * width)), dilation=dilation, name=f"dc_conv{index}")(x))
        return _conv(2, name="dc_conv7")(x)


def _conv(features: int, *, name: str, stride: int = 1, dilation: int = 1, extra: bool = False) -> nn.Conv:
    init: Any = nn.initializers.zeros if extra else nn.initializers.he_normal()
    return nn.Conv(features, (3, 3), (stride, stride), padding=dilation, kernel_dilation=dilation, kernel_init=init,
                   use_bias=not extra, name=name)  # fmt: skip


def _normalized(*maps: Float[Array, "b h w c"]) -> tuple[Array, ...]:
    """By the mean and deviation of each channel over both maps of a pair."""
    mean = sum(jnp.mean(x, axis=(1, 2), keepdims=True) for x in maps) / len(maps)
    variance = sum(jnp.mean((x - mean) ** 2, axis=(1, 2), keepdims=True) for x in maps) / len(maps)
    return tuple((x - mean) / jnp.sqrt(variance + 1e-6) for x in maps)


def _leaky(x: Array) -> Array:
    return nn.leaky_relu(x, 0.1)


def _warp_inside(x: Float[Array, "h w c"], flow: Float[Array, "h w 2"]) -> Float[Array, "h w c"]:
    """Warps, and leaves zeros where the flow reaches out of the frame."""
    return warp(x, flow) * (warp_coverage(flow) >= _INSIDE)[..., None]
