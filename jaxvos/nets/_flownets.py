"""FlowNetS: flow from two stacked images, by an encoder and a decoder (Dosovitskiy et al., ICCV 2015)."""

from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxvos.nets._flow_output import FlowOutput
from jaxvos.nets._up_conv import UpConv
from jaxvos.ops import resize

__all__ = ["FlowNetS"]

_WIDTHS = {1: 1, 2: 2, 3: 4, 4: 8, 5: 8, 6: 16}  # channels of the encoder's levels, in those of the first
_UP_WIDTHS = {5: 8, 4: 4, 3: 2, 2: 1}


class FlowNetS(nn.Module):
    """The published net; its modules are named as in the PyTorch port, so that `flownets_from_torch` can convert one.

    Level `l` is a `2**l`-th of the size. Where sizes are odd, what is enlarged is cut to that of the encoder's map.

    Attributes:
      width: channels of the first convolution, to which all others are proportional; 64 as published.
      decoder_bias: whether the decoder has biases, as the Caffe original has and the PyTorch port has not.
      injected: levels, of 4, 3 and 2, that get maps of another net. They enter as further channels of what flow is
        predicted from, through kernels that are zero at first.
      inject: whether predictors alone see them (`heads`), or also what enlarges their level's features (`decoder`).
    """

    width: int = 64
    decoder_bias: bool = False
    injected: tuple[int, ...] = ()
    inject: Literal["heads", "decoder"] = "heads"

    def setup(self):
        width = lambda level: self.width * _WIDTHS[level]  # noqa: E731
        self.conv1, self.conv2 = _conv(width(1), 7, stride=2), _conv(width(2), 5, stride=2)
        self.conv3, self.conv3_1 = _conv(width(3), 5, stride=2), _conv(width(3), 3)
        self.conv4, self.conv4_1 = _conv(width(4), 3, stride=2), _conv(width(4), 3)
        self.conv5, self.conv5_1 = _conv(width(5), 3, stride=2), _conv(width(5), 3)
        self.conv6, self.conv6_1 = _conv(width(6), 3, stride=2), _conv(width(6), 3)
        up = lambda level: UpConv(self.width * _UP_WIDTHS[level], use_bias=self.decoder_bias)  # noqa: E731
        self.deconv5, self.deconv4, self.deconv3, self.deconv2 = (up(level) for level in (5, 4, 3, 2))
        predict = lambda: _conv(2, 3, use_bias=self.decoder_bias)  # noqa: E731
        self.predict_flow6, self.predict_flow5, self.predict_flow4 = predict(), predict(), predict()
        self.predict_flow3, self.predict_flow2 = predict(), predict()
        up_flow = lambda: UpConv(2, use_bias=self.decoder_bias)  # noqa: E731
        self.upsampled_flow6_to_5, self.upsampled_flow5_to_4 = up_flow(), up_flow()
        self.upsampled_flow4_to_3, self.upsampled_flow3_to_2 = up_flow(), up_flow()
        zeros: Any = nn.initializers.zeros
        self.predict_extra = {str(level): _conv(2, 3, use_bias=False, kernel_init=zeros) for level in self.injected}
        if self.inject == "decoder":
            self.deconv_extra = {
                str(level): UpConv(self.width * _UP_WIDTHS[level - 1], use_bias=False, kernel_init=zeros)
                for level in self.injected if level > 2
            }  # fmt: skip

    def __call__(self, pair: Float[Array, "b h w 6"]) -> FlowOutput:
        """Returns flow and features of two stacked images."""
        return self.decode(self.encode(pair))

    def encode(self, pair: Float[Array, "b h w 6"]) -> dict[int, Array]:
        """Returns the maps of levels 2 to 6.

        Args:
          pair: both images, normalised, the later one in the last three channels.
        """
        levels = {2: _leaky(self.conv2(_leaky(self.conv1(pair))))}
        deeper = ((self.conv3, self.conv3_1), (self.conv4, self.conv4_1), (self.conv5, self.conv5_1),
                  (self.conv6, self.conv6_1))  # fmt: skip
        for level, (first, second) in enumerate(deeper, start=3):
            levels[level] = _leaky(second(_leaky(first(levels[level - 1]))))
        return levels

    def decode(self, levels: dict[int, Array], *, extra: dict[int, Array] | None = None) -> FlowOutput:
        """Returns the flow and the features of every level, coarse to fine.

        Args:
          levels: from `encode`.
          extra: of the injected levels, maps of any size and number of channels.
        """
        deconvs = {5: self.deconv5, 4: self.deconv4, 3: self.deconv3, 2: self.deconv2}
        predictors = {5: self.predict_flow5, 4: self.predict_flow4, 3: self.predict_flow3, 2: self.predict_flow2}
        enlargers = {5: self.upsampled_flow6_to_5, 4: self.upsampled_flow5_to_4, 3: self.upsampled_flow4_to_3,
                     2: self.upsampled_flow3_to_2}  # fmt: skip
        x = levels[6]
        flows, features, more = {6: self.predict_flow6(x)}, {}, 0.0
        for level in (5, 4, 3, 2):
            skip = levels[level]
            enlarged = _cut(_leaky(deconvs[level](x) + more), skip), _cut(enlargers[level](flows[level + 1]), skip)
            features[level] = x = jnp.concatenate([skip, *enlarged], axis=-1)
            flow, more = predictors[level](x), 0.0
            if level in self.injected:
                other = resize((extra or {})[level], x.shape[1:3])
                flow = flow + self.predict_extra[str(level)](other)
                if self.inject == "decoder" and level > 2:
                    more = self.deconv_extra[str(level)](other)
            flows[level] = flow
        return FlowOutput(flows, features)


def _conv(features: int, kernel: int, *, stride: int = 1, use_bias: bool = True, **options: Any) -> nn.Conv:
    return nn.Conv(features, (kernel, kernel), (stride, stride), padding=kernel // 2, use_bias=use_bias,
                   **{"kernel_init": nn.initializers.he_normal(), **options})  # fmt: skip


def _leaky(x: Array) -> Array:
    return nn.leaky_relu(x, 0.1)


def _cut(x: Float[Array, "b y x c"], like: Float[Array, "b h w d"]) -> Float[Array, "b h w c"]:
    return x[:, : like.shape[1], : like.shape[2]]
