"""Blocks of space-time correspondence networks: residual convolutions without norms, and attention between them."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["CBAM", "FusionBlock", "ResBlock"]

_conv3x3 = functools.partial(nn.Conv, kernel_size=(3, 3), kernel_init=nn.initializers.he_normal())
_shortcut = nn.initializers.lecun_normal()
_small = nn.initializers.variance_scaling(0.02, "fan_in", "normal")  # nothing is normalised: blocks start near identity


class ResBlock(nn.Module):
    """Two 3x3 convolutions, each after a ReLU, and a shortcut, which is a 3x3 convolution where the widths differ."""

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "*b h w c"]) -> Float[Array, "*b h w d"]:
        y = _conv3x3(self.features, name="conv1")(nn.relu(x))
        y = _conv3x3(self.features, kernel_init=_small, name="conv2")(nn.relu(y))
        if x.shape[-1] != self.features:
            x = _conv3x3(self.features, kernel_init=_shortcut, name="downsample")(x)
        return x + y


class CBAM(nn.Module):
    """Gates of the channels and then of the places, from their means and maxima (Woo et al. 2018).

    Attributes:
      reduction: of channels within the gate's two layers; at least four are left.
    """

    reduction: int = 16

    @nn.compact
    def __call__(self, x: Float[Array, "*b h w c"]) -> Float[Array, "*b h w c"]:
        c = x.shape[-1]
        first, second = nn.Dense(max(c // self.reduction, 4), name="mlp_1"), nn.Dense(c, name="mlp_3")
        pooled = (x.mean(axis=(-3, -2)), x.max(axis=(-3, -2)))
        x = x * jax.nn.sigmoid(sum(second(nn.relu(first(p))) for p in pooled))[..., None, None, :]
        places = jnp.stack([x.max(axis=-1), x.mean(axis=-1)], axis=-1)
        return x * jax.nn.sigmoid(nn.Conv(1, (7, 7), name="spatial")(places))


class FusionBlock(nn.Module):
    """Two inputs of one size become one: residual block, attention, residual block.

    Attributes:
      features: channels of the result.
      attention: leave the gates out (False), which changes little beyond small training sets.
    """

    features: int
    attention: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "*b h w c"], y: Float[Array, "*b h w d"]) -> Float[Array, "*b h w e"]:
        z = ResBlock(self.features, name="block1")(jnp.concatenate([x, y], axis=-1))
        if self.attention:
            z = z + CBAM(name="attention")(z)
        return ResBlock(self.features, name="block2")(z)
