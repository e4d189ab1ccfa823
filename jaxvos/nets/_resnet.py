"""ResNets in torchvision's layout (He et al. 2016; the stride sits in the 3x3 convolution), stage by stage."""

from functools import partial
from typing import Any, Literal

import flax.linen as nn
from jaxtyping import Array, Float

__all__ = ["ResNet"]

_LAYERS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}

_conv = partial(nn.Conv, use_bias=False, kernel_init=nn.initializers.he_normal())
_norm = partial(nn.BatchNorm, momentum=0.9, epsilon=1e-5)


def _conv3x3(features: int, *, stride: int = 1, dilation: int = 1) -> nn.Conv:
    return _conv(features, (3, 3), (stride, stride), padding=dilation, kernel_dilation=dilation)


class _Block(nn.Module):
    """Basic (two 3x3) or bottleneck (1x1, 3x3, 1x1) residual block."""

    features: int  # of the block's inner convolutions
    bottleneck: bool
    stride: int = 1
    dilation: int = 1
    project: bool = False  # the shortcut has a convolution of its own

    def setup(self):
        if self.bottleneck:
            self.conv1, self.bn1 = _conv(self.features, (1, 1)), _norm()
            self.conv2, self.bn2 = _conv3x3(self.features, stride=self.stride, dilation=self.dilation), _norm()
            self.conv3, self.bn3 = _conv(4 * self.features, (1, 1)), _norm()
        else:
            self.conv1, self.bn1 = _conv3x3(self.features, stride=self.stride, dilation=self.dilation), _norm()
            self.conv2, self.bn2 = _conv3x3(self.features), _norm()
        if self.project:
            out = 4 * self.features if self.bottleneck else self.features
            self.downsample_0, self.downsample_1 = _conv(out, (1, 1), (self.stride, self.stride)), _norm()

    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b y x d"]:
        norm: dict[str, Any] = {"use_running_average": not train}
        y = nn.relu(self.bn1(self.conv1(x), **norm))
        y = self.bn2(self.conv2(y), **norm)
        if self.bottleneck:
            y = self.bn3(self.conv3(nn.relu(y)), **norm)
        shortcut = self.downsample_1(self.downsample_0(x), **norm) if self.project else x
        return nn.relu(y + shortcut)


class ResNet(nn.Module):
    """ResNet-18/34/50/101 without its classifier.

    Parameters are named as torchvision's state dict with dots between a layer and its block turned into underscores
    (`layer1.0.conv1.weight` is `layer1_0/conv1/kernel`), so that `resnet_from_torch` can convert one.

    Attributes:
      depth: 18, 34, 50 or 101.
      width: channels of the stem; 64 is the published net, less makes thin nets for tests.
      dilate: for Res3, Res4, Res5, whether to dilate in place of striding.
      keep_size: for Res3, Res4, Res5, whether to stride by 1, without dilation.
    """

    depth: Literal[18, 34, 50, 101]
    width: int = 64
    dilate: tuple[bool, bool, bool] = (False, False, False)
    keep_size: tuple[bool, bool, bool] = (False, False, False)

    @property
    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation, per channel, that images in [0, 1] are normalised with."""
        return (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    @property
    def first(self) -> dict[str, Any]:
        """Shape of the first convolution: that of another input, for `stem`'s `extra`, must have the same."""
        return {"features": self.width, "kernel_size": (7, 7), "strides": (2, 2), "padding": 3}

    @property
    def widths(self) -> dict[int, int]:
        """Channels of each stage, by its number: Res2 to Res5."""
        expansion = 4 if self.depth >= 50 else 1
        return {stage: expansion * self.width * 2 ** (stage - 2) for stage in (2, 3, 4, 5)}

    def setup(self):
        self.conv1, self.bn1 = _conv(**self.first), _norm()
        layers, dilation, channels = [], 1, self.width
        for stage, blocks in zip((2, 3, 4, 5), _LAYERS[self.depth], strict=True):
            stride, first_dilation = (1 if stage == 2 else 2), dilation
            if stage > 2 and self.dilate[stage - 3]:
                dilation, stride = 2 * dilation, 1
            if stage > 2 and self.keep_size[stage - 3]:
                stride = 1
            layer = []
            for i in range(blocks):
                layer.append(_Block(
                    features=self.width * 2 ** (stage - 2),
                    bottleneck=self.depth >= 50,
                    stride=stride if i == 0 else 1,
                    dilation=first_dilation if i == 0 else dilation,
                    project=i == 0 and (stride > 1 or channels != self.widths[stage]),
                ))
            layers.append(layer)
            channels = self.widths[stage]
        self.layer1, self.layer2, self.layer3, self.layer4 = layers

    def stem(
        self, x: Float[Array, "b h w 3"], *, train: bool, extra: Float[Array, "b p q c"] | None = None
    ) -> Float[Array, "b y x c"]:
        """First convolution, normalisation and max-pooling: a quarter of the size.

        Args:
          x: normalised images.
          train: whether to normalise by the statistics of the batch.
          extra: added to what the first convolution gives, at half the size: that of another input.
        """
        x = self.conv1(x)
        x = nn.relu(self.bn1(x if extra is None else x + extra, use_running_average=not train))
        return nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))  # pyright: ignore[reportArgumentType]

    def stage(self, x: Float[Array, "b h w c"], number: int, *, train: bool) -> Float[Array, "b y x d"]:
        """Residual stage Res2, Res3, Res4 or Res5, by its number."""
        for block in (self.layer1, self.layer2, self.layer3, self.layer4)[number - 2]:
            x = block(x, train=train)
        return x

    def __call__(self, x: Float[Array, "b h w 3"], *, train: bool = False) -> dict[int, Array]:
        """Features of Res2 to Res5 (strides 4, 8, 16, 32) of normalised images, by stage number."""
        x, features = self.stem(x, train=train), {}
        for number in (2, 3, 4, 5):
            features[number] = x = self.stage(x, number, train=train)
        return features

