"""The transposed convolution that doubles the size, as flow networks have it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["UpConv"]


class UpConv(nn.Module):
    """Transposed convolution of kernel 4, stride 2 and padding 1: twice the height and width.

    Each of the four phases of the result sees 2x2 positions of the input, so it is computed as one 2x2 convolution to
    four times the channels, which are then interleaved: XLA has no fast kernel for the zeros between the inputs on a
    CPU. `kernel` is `(4, 4, in, out)`, torch's `ConvTranspose2d` weight with its first two axes moved to the end.

    Attributes:
      features: channels of the result.
      use_bias: whether there is a bias.
      kernel_init: initializer of the kernel.
    """

    features: int
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer = nn.initializers.variance_scaling(4.0, "fan_in", "normal")

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b 2*h 2*w d"]:
        b, h, w, c = x.shape
        kernel = self.param("kernel", self.kernel_init, (4, 4, c, self.features))
        # at 2m the inputs m - 1 and m meet the taps 3 and 1, at 2m + 1 the inputs m and m + 1 the taps 2 and 0
        taps = jnp.array([[3, 1], [2, 0]])
        phases = kernel[taps[:, None, :, None], taps[None, :, None, :]]  # phase y, phase x, tap y, tap x, in, out
        phases = jnp.moveaxis(phases, (0, 1), (3, 4)).reshape(2, 2, c, 4 * self.features)
        layout = ("NHWC", "HWIO", "NHWC")
        y = jax.lax.conv_general_dilated(x, phases, (1, 1), ((1, 1), (1, 1)), dimension_numbers=layout)
        y = y.reshape(b, h + 1, w + 1, 2, 2, self.features)
        rows = jnp.stack([y[:, :h, :, 0], y[:, 1:, :, 1]], axis=2)  # b h 2 (w+1) 2 d
        both = jnp.stack([rows[..., :w, 0, :], rows[..., 1:, 1, :]], axis=4)  # b h 2 w 2 d
        out = both.reshape(b, 2 * h, 2 * w, self.features)
        return out + self.param("bias", nn.initializers.zeros, (self.features,)) if self.use_bias else out
