"""NumPy statements of what the published STCN and XMem compute, on state dicts of theirs: `c h w`, in float64."""

import numpy as np

MEAN, STD = (np.array(x)[:, None, None] for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def relu(x):
    return np.maximum(x, 0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def cat(*maps):
    return np.concatenate(maps, axis=0)


def windows(x, size, stride, fill):
    """`c y x size size`, of a map with `size // 2` pixels of padding on every side."""
    p = size // 2
    x = np.pad(x, ((0, 0), (p, p), (p, p)), constant_values=fill)
    return np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))[:, ::stride, ::stride]


def halve(x):
    """The highest of 3 x 3, every second one."""
    return windows(x, 3, 2, -np.inf).max(axis=(3, 4))


def cells(x, size):
    """Means over squares."""
    c, h, w = x.shape
    return x.reshape(c, h // size, size, w // size, size).mean(axis=(2, 4))


def enlarge(x, factor):
    """Linear between the centres of pixels, and constant beyond the outermost."""
    for axis in (1, 2):
        n = x.shape[axis]
        where = np.clip((np.arange(n * factor) + 0.5) / factor - 0.5, 0, n - 1)
        low = np.floor(where).astype(int)
        shape = [-1 if i == axis else 1 for i in range(3)]
        share = (where - low).reshape(shape)
        x = x.take(low, axis) * (1 - share) + x.take(np.minimum(low + 1, n - 1), axis) * share
    return x


def aggregate(p):
    """Objects that were judged one by one, `o h w`, against the background and each other: `1 + o` channels."""
    p = np.clip(cat(np.prod(1 - p, axis=0, keepdims=True), p), 1e-7, 1 - 1e-7)
    odds = p / (1 - p)
    return odds / odds.sum(axis=0)


class _Net:
    """Layers by the names of a state dict; `used` are the tensors that were asked for."""

    def __init__(self, state):
        self.state, self.used = state, set()

    def get(self, name):
        self.used.add(name)
        return self.state[name].astype(float)

    def conv(self, name, x, stride=1):
        weight = self.get(f"{name}.weight")
        y = np.tensordot(weight, windows(x, weight.shape[-1], stride, 0), axes=[(1, 2, 3), (0, 3, 4)])
        return y + self.get(f"{name}.bias")[:, None, None] if f"{name}.bias" in self.state else y

    def dense(self, name, x):
        return self.get(f"{name}.weight") @ x + self.get(f"{name}.bias")

    def norm(self, name, x):
        mean, var, scale, bias = (self.get(f"{name}.{leaf}")[:, None, None]
                                  for leaf in ("running_mean", "running_var", "weight", "bias"))  # fmt: skip
        return (x - mean) / np.sqrt(var + 1e-5) * scale + bias

    def stage(self, name, x, blocks, stride):
        for i in range(blocks):
            block, step = f"{name}.{i}", stride if i == 0 else 1
            bottleneck = f"{block}.conv3.weight" in self.state
            y = relu(self.norm(f"{block}.bn1", self.conv(f"{block}.conv1", x, 1 if bottleneck else step)))
            y = self.norm(f"{block}.bn2", self.conv(f"{block}.conv2", y, step if bottleneck else 1))
            if bottleneck:
                y = self.norm(f"{block}.bn3", self.conv(f"{block}.conv3", relu(y)))
            if f"{block}.downsample.0.weight" in self.state:
                x = self.norm(f"{block}.downsample.1", self.conv(f"{block}.downsample.0", x, step))
            x = relu(y + x)
        return x

    def block(self, name, x):
        y = self.conv(f"{name}.conv2", relu(self.conv(f"{name}.conv1", relu(x))))
        return y + (self.conv(f"{name}.downsample", x) if f"{name}.downsample.weight" in self.state else x)

    def attention(self, name, x):
        gate = lambda v: self.dense(f"{name}.ChannelGate.mlp.3", relu(self.dense(f"{name}.ChannelGate.mlp.1", v)))  # noqa: E731
        x = x * sigmoid(gate(x.mean(axis=(1, 2))) + gate(x.max(axis=(1, 2))))[:, None, None]
        places = cat(x.max(axis=0, keepdims=True), x.mean(axis=0, keepdims=True))
        return x * sigmoid(self.conv(f"{name}.SpatialGate.spatial.conv", places))

    def fuse(self, name, x):
        x = self.block(f"{name}.block1", x)
        return self.block(f"{name}.block2", x + self.attention(f"{name}.attention", x))

    def gru(self, name, x, h):
        forget, update, new = np.split(self.conv(f"{name}.transform", cat(x, h)), 3)
        return sigmoid(forget) * h * (1 - sigmoid(update)) + sigmoid(update) * np.tanh(new)

    def levels(self, image):
        """Features at strides 16, 8 and 4."""
        x = self.norm("key_encoder.bn1", self.conv("key_encoder.conv1", (image - MEAN) / STD, 2))
        f4 = self.stage("key_encoder.res2", halve(relu(x)), 3, 1)
        f8 = self.stage("key_encoder.layer2", f4, 4, 2)
        return self.stage("key_encoder.layer3", f8, 6, 2), f8, f4

    def up(self, name, skip, x):
        return self.block(f"{name}.out_conv", self.conv(f"{name}.skip_conv", skip) + enlarge(x, 2))

    def decode(self, x, f8, f4):
        g8 = self.up("decoder.up_16_8", f8, x)
        g4 = self.up("decoder.up_8_4", f4, g8)
        return self.conv("decoder.pred", relu(g4)), g8, g4


class STCN(_Net):
    def encode_key(self, image):
        f16, f8, f4 = self.levels(image)
        return self.conv("key_proj.key_proj", f16), self.conv("key_comp", f16), f16, f8, f4

    def encode_value(self, image, f16, mask, others):
        x = cat((image - MEAN) / STD, *((mask, others) if self.state["value_encoder.conv1.weight"].shape[1] == 5
                                        else (mask,)))  # fmt: skip
        x = halve(relu(self.norm("value_encoder.bn1", self.conv("value_encoder.conv1", x, 2))))
        for i in range(3):
            x = self.stage(f"value_encoder.layer{i + 1}", x, 2, 1 if i == 0 else 2)
        return self.fuse("value_encoder.fuser", cat(x, f16))

    def read(self, keys, values, query):
        """Lists of maps of the frames in memory, and the key of one more."""
        k, v = (np.stack([x.reshape(len(x), -1) for x in maps]) for maps in (keys, values))
        k, v = (np.moveaxis(x, 1, 0).reshape(x.shape[1], -1) for x in (k, v))
        scores = (2 * k.T @ query.reshape(len(query), -1) - np.sum(k**2, axis=0)[:, None]) / np.sqrt(len(k))
        weights = np.exp(scores - scores.max(axis=0))
        return (v @ (weights / weights.sum(axis=0))).reshape(-1, *query.shape[1:])

    def segment(self, readout, thin, f8, f4):
        """The logit at stride 4."""
        return self.decode(self.block("decoder.compress", cat(readout, thin)), f8, f4)[0]


class XMem(_Net):
    def encode_key(self, image):
        """Key, shrinkage, selection, and features."""
        f16, f8, f4 = self.levels(image)
        shrinkage = self.conv("key_proj.d_proj", f16) ** 2 + 1
        return self.conv("key_proj.key_proj", f16), shrinkage, sigmoid(self.conv("key_proj.e_proj", f16)), f16, f8, f4

    def encode_value(self, image, f16, h, mask, others):
        """Value, and the hidden state that it renews."""
        x = cat((image - MEAN) / STD, mask, others)
        x = relu(halve(self.norm("value_encoder.bn1", self.conv("value_encoder.conv1", x, 2))))
        for i in range(3):
            x = self.stage(f"value_encoder.layer{i + 1}", x, 2, 1 if i == 0 else 2)
        value = self.fuse("value_encoder.fuser", cat(f16, x))
        return value, self.gru("value_encoder.hidden_reinforce", value, h)

    def read(self, key, shrinkage, value, query, selection):
        """From one frame in memory."""
        k, s, v, q, e = (x.reshape(len(x), -1) for x in (key, shrinkage, value, query, selection))
        scores = np.einsum("cj,cij->ij", e, -((k[:, :, None] - q[:, None]) ** 2)) * s[0][:, None] / np.sqrt(len(k))
        weights = np.exp(scores - scores.max(axis=0))
        return (v @ (weights / weights.sum(axis=0))).reshape(-1, *query.shape[1:])

    def segment(self, f16, f8, f4, h, readout):
        """The logit at stride 4, and the next hidden state."""
        g16 = self.fuse("decoder.fuser", cat(f16, readout, h))
        logit, g8, g4 = self.decode(g16, f8, f4)
        seen = self.conv("decoder.hidden_update.g16_conv", g16)
        seen = seen + self.conv("decoder.hidden_update.g8_conv", cells(g8, 2))
        seen = seen + self.conv("decoder.hidden_update.g4_conv", cells(cat(g4, logit), 4))
        return logit, self.gru("decoder.hidden_update", seen, h)
