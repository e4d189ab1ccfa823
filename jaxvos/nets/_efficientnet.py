"""EfficientNet-Lite0 (Tan and Le 2019, the Lite form: no squeeze-and-excitation, ReLU6), stage by stage."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxvos.nets._depthwise import DepthwiseConv

__all__ = ["EfficientNetLite0"]

# expansion, kernel size, stride, features: one row per inverted-bottleneck block
_BLOCKS = (
    (1, 3, 1, 16),
    (6, 3, 2, 24), (6, 3, 1, 24),
    (6, 5, 2, 40), (6, 5, 1, 40),
    (6, 3, 2, 80), (6, 3, 1, 80), (6, 3, 1, 80),
    (6, 5, 1, 112), (6, 5, 1, 112), (6, 5, 1, 112),
    (6, 5, 2, 192), (6, 5, 1, 192), (6, 5, 1, 192), (6, 5, 1, 192),
    (6, 3, 1, 320),
)  # fmt: skip
_STAGES = {2: range(0, 3), 3: range(3, 5), 4: range(5, 11), 5: range(11, 15)}

_conv = partial(nn.Conv, use_bias=False, padding="SAME", kernel_init=nn.initializers.he_normal())
_norm = partial(nn.BatchNorm, momentum=0.9, epsilon=1e-3)


class _InvertedBottleneck(nn.Module):
    expansion: int
    size: int
    stride: int
    features: int
    inputs: int

    def setup(self):
        if self.expansion > 1:
            self.expand_conv, self.bn0 = _conv(self.expansion * self.inputs, (1, 1)), _norm()
        self.depthwise_conv, self.bn1 = DepthwiseConv(self.size, self.stride), _norm()
        self.project_conv, self.bn2 = _conv(self.features, (1, 1)), _norm()

    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b y x d"]:
        norm: dict[str, Any] = {"use_running_average": not train}
        y = nn.relu6(self.bn0(self.expand_conv(x), **norm)) if self.expansion > 1 else x
        y = nn.relu6(self.bn1(self.depthwise_conv(y), **norm))
        y = self.bn2(self.project_conv(y), **norm)
        return x + y if self.stride == 1 and self.inputs == self.features else y


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 as a feature extractor.

    The stages end where the size halves: 24, 40, 112 and 192 channels at strides 4, 8, 16 and 32. The last block
    (320 channels) and the classifier serve `logits` alone and have no parameters unless that is called. Features are
    the linear outputs of the bottlenecks and hence signed, unlike a ResNet's.
    """

    @property
    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of images in [0, 1]: 127 and 128 of 255, as the weights were trained."""
        return (127 / 255,) * 3, (128 / 255,) * 3

    @property
    def first(self) -> dict[str, Any]:
        """Shape of the first convolution, as for `ResNet`."""
        return {"features": 32, "kernel_size": (3, 3), "strides": (2, 2), "padding": "SAME"}

    @property
    def widths(self) -> dict[int, int]:
        """Channels of each stage, by its number, as for `ResNet`."""
        return {number: _BLOCKS[blocks[-1]][-1] for number, blocks in _STAGES.items()}

    def setup(self):
        self.conv_stem, self.bn0 = _conv(**self.first), _norm()
        inputs = (32, *(row[-1] for row in _BLOCKS[:-1]))
        self.blocks = [_InvertedBottleneck(*row, inputs=c) for row, c in zip(_BLOCKS, inputs, strict=True)]
        self.conv_head, self.bn1, self.fc = _conv(1280, (1, 1)), _norm(), nn.Dense(1000)

    def stem(
        self, x: Float[Array, "b h w 3"], *, train: bool, extra: Float[Array, "b y x c"] | None = None
    ) -> Float[Array, "b y x c"]:
        """First convolution, half the size; `extra`, as for `ResNet`, is added to what it gives."""
        x = self.conv_stem(x)
        return nn.relu6(self.bn0(x if extra is None else x + extra, use_running_average=not train))

    def stage(self, x: Float[Array, "b h w c"], number: int, *, train: bool) -> Float[Array, "b y x d"]:
        """The blocks between two halvings of the size, numbered as a ResNet's stages."""
        for i in _STAGES[number]:
            x = self.blocks[i](x, train=train)
        return x

    def __call__(self, x: Float[Array, "b h w 3"], *, train: bool = False) -> dict[int, Array]:
        """Features at strides 4, 8, 16, 32 of normalised images, by stage number (2 to 5)."""
        x, features = self.stem(x, train=train), {}
        for number in _STAGES:
            features[number] = x = self.stage(x, number, train=train)
        return features

    def logits(self, x: Float[Array, "b h w 3"]) -> Float[Array, "b 1000"]:
        """ImageNet class scores: what the pretrained weights were trained for, and how their conversion is tested."""
        x = self.blocks[15](self(x)[5], train=False)
        x = nn.relu6(self.bn1(self.conv_head(x), use_running_average=True))
        return self.fc(jnp.mean(x, axis=(1, 2)))
