"""Published layouts of STCN and XMem: thin made-up state dicts compute what a NumPy statement of theirs does."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import space_time_nets as published

from jaxvos.errors import InputError
from jaxvos.nets import stcn_from_torch, xmem_from_torch
from jaxvos.system import Clip, Frame
from jaxvos.systems import MemoryConfig, STCNConfig, XMemConfig, stcn, xmem
from jaxvos.systems._stcn import _STCN
from jaxvos.systems._xmem import _XMem
from jaxvos.training import match_variables

WIDTH, KEY, VALUE, HIDDEN, DECODER, GATE = 2, 4, 6, 3, (5, 3, 3), 4  # widths; GATE is inside the gate of channels
DEEP = 16 * WIDTH
THIN = {"encoder_width": WIDTH, "key_width": KEY, "value_width": VALUE, "decoder_widths": DECODER}
MEMORY = MemoryConfig(every=2, frames=4, top_k=None, short_side=None)
STCN, XMEM = STCNConfig(**THIN, memory=MEMORY), XMemConfig(**THIN, hidden_width=HIDDEN, memory=MEMORY)
SIZE, OBJECTS = (32, 48), 2


class _Maker:
    """Draws the tensors of layers."""

    def __init__(self):
        self.state, self.rng = {}, np.random.default_rng(0)

    def draw(self, name, *shape, low=-0.3, high=0.3):
        self.state[name] = self.rng.uniform(low, high, shape).astype(np.float32)

    def conv(self, name, out, inside, size, *, bias=True):
        reach = (3 / (inside * size**2)) ** 0.5
        self.draw(f"{name}.weight", out, inside, *((size, size) if size else ()), low=-reach, high=reach)
        if bias:
            self.draw(f"{name}.bias", out)

    def dense(self, name, out, inside):
        self.draw(f"{name}.weight", out, inside, low=-1, high=1)
        self.draw(f"{name}.bias", out)

    def norm(self, name, width):
        for leaf, low, high in (("weight", 0.5, 1.5), ("bias", -0.3, 0.3), ("running_mean", -0.3, 0.3),
                                ("running_var", 0.5, 1.5)):  # fmt: skip
            self.draw(f"{name}.{leaf}", width, low=low, high=high)
        self.state[f"{name}.num_batches_tracked"] = np.array(7)

    def resnet(self, name, inputs, stages, *, bottleneck, bias):
        self.conv(f"{name}.conv1", WIDTH, inputs, 7, bias=bias)
        self.norm(f"{name}.bn1", WIDTH)
        inside = WIDTH
        for i, (stage, blocks) in enumerate(stages.items()):
            width = WIDTH * 2**i
            out = 4 * width if bottleneck else width
            for j in range(blocks):
                block = f"{name}.{stage}.{j}"
                widths = ((width, inside, 1), (width, width, 3), (out, width, 1)) if bottleneck else (
                    (width, inside, 3), (width, width, 3))  # fmt: skip
                for k, shape in enumerate(widths, 1):
                    self.conv(f"{block}.conv{k}", *shape, bias=bias)
                    self.norm(f"{block}.bn{k}", shape[0])
                if inside != out:
                    self.conv(f"{block}.downsample.0", out, inside, 1, bias=bias)
                    self.norm(f"{block}.downsample.1", out)
                inside = out

    def block(self, name, out, inside):
        self.conv(f"{name}.conv1", out, inside, 3)
        self.conv(f"{name}.conv2", out, out, 3)
        if out != inside:
            self.conv(f"{name}.downsample", out, inside, 3)

    def fusion(self, name, out, inside, *, attention=True):
        self.block(f"{name}.block1", out, inside)
        self.block(f"{name}.block2", out, out)
        if attention:
            self.dense(f"{name}.attention.ChannelGate.mlp.1", GATE, out)
            self.dense(f"{name}.attention.ChannelGate.mlp.3", out, GATE)
            self.conv(f"{name}.attention.SpatialGate.spatial.conv", 1, 2, 7)

    def encoders(self, *, masks, bias, attention=True):
        self.resnet("key_encoder", 3, {"res2": 3, "layer2": 4, "layer3": 6}, bottleneck=True, bias=False)
        self.resnet("value_encoder", 3 + masks, {"layer1": 2, "layer2": 2, "layer3": 2}, bottleneck=False, bias=bias)
        self.fusion("value_encoder.fuser", VALUE, DEEP + 4 * WIDTH, attention=attention)
        self.conv("key_proj.key_proj", KEY, DEEP, 3)

    def decoder(self):
        a, b, c = DECODER
        self.conv("decoder.up_16_8.skip_conv", a, 8 * WIDTH, 3)
        self.block("decoder.up_16_8.out_conv", b, a)
        self.conv("decoder.up_8_4.skip_conv", b, 4 * WIDTH, 3)
        self.block("decoder.up_8_4.out_conv", c, b)
        self.conv("decoder.pred", 1, c, 3)


@functools.cache
def _stcn_state(masks=2, attention=True):
    make = _Maker()
    make.encoders(masks=masks, bias=True, attention=attention)
    make.conv("key_comp", VALUE, DEEP, 3)
    make.block("decoder.compress", DECODER[0], 2 * VALUE)
    make.decoder()
    return make.state


@functools.cache
def _xmem_state():
    make = _Maker()
    make.encoders(masks=2, bias=False)
    make.conv("key_proj.d_proj", 1, DEEP, 3)
    make.conv("key_proj.e_proj", KEY, DEEP, 3)
    make.conv("value_encoder.hidden_reinforce.transform", 3 * HIDDEN, VALUE + HIDDEN, 3)
    make.fusion("decoder.fuser", DECODER[0], DEEP + VALUE + HIDDEN)
    for name, inside in zip(("g16_conv", "g8_conv", "g4_conv"), (*DECODER[:2], DECODER[2] + 1), strict=True):
        make.conv(f"decoder.hidden_update.{name}", DECODER[1], inside, 1)
    make.conv("decoder.hidden_update.transform", 3 * HIDDEN, DECODER[1] + HIDDEN, 3)
    make.decoder()
    return make.state


def _scene(frames):
    """Images and the first masks, `c h w`."""
    rng = np.random.default_rng(1)
    images = rng.random((frames, 3, *SIZE)).astype(np.float32)
    masks = np.zeros((1 + OBJECTS, *SIZE), np.float32)
    masks[1, 4:20, 6:25] = masks[2, 10:30, 28:44] = 1
    masks[0] = 1 - masks[1:].sum(axis=0)
    return images, masks


def _ours(x):
    return jnp.asarray(np.moveaxis(x, -3, -1), jnp.float32)


def _assert_close(ours, theirs):
    """Theirs is `c h w`."""
    theirs = np.moveaxis(theirs, -3, -1)
    np.testing.assert_allclose(ours, theirs.reshape(ours.shape), atol=1e-4, rtol=1e-4)
    assert np.std(theirs) > 1e-2


def _unused(net):
    return {name for name in net.state if not name.endswith("num_batches_tracked")} - net.used


def _expected(system):
    return jax.eval_shape(system.init, jax.random.key(0), Clip(jax.ShapeDtypeStruct((1, 1, 64, 64, 3), jnp.float32)))


def test_each_part_of_stcn_computes_what_the_published_one_does():
    net, (images, masks) = published.STCN(_stcn_state()), _scene(2)
    key, thin, f16, f8, f4 = net.encode_key(images[0])
    value = net.encode_value(images[0], f16, masks[1:2], masks[2:3])
    logit = net.segment(value, thin, f8, f4)
    assert not _unused(net)

    @jax.jit
    def parts(variables, image, masks):
        apply = functools.partial(_STCN(STCN).apply, variables)
        look = jax.tree.map(lambda x: x[0], apply(image[None], method="look"))
        found, _ = apply(image, masks, look, None, method="remember")
        return look, found, apply(look, found, None, method="segment")[0]

    look, found, logits = parts(stcn_from_torch(_stcn_state()), _ours(images[0]), _ours(masks[1:3]))
    for ours, theirs in zip((look.keys.key, look.deep, *look.skips, found), (key, f16, f8, f4, value), strict=True):
        _assert_close(ours, theirs)
    _assert_close(logits[..., None], logit)


def test_each_part_of_xmem_computes_what_the_published_one_does():
    net, (images, masks) = published.XMem(_xmem_state()), _scene(2)
    hidden = np.random.default_rng(2).normal(size=(HIDDEN, SIZE[0] // 16, SIZE[1] // 16))
    key, shrinkage, selection, f16, f8, f4 = net.encode_key(images[0])
    value, renewed = net.encode_value(images[0], f16, hidden, masks[1:2], masks[2:3])
    logit, updated = net.segment(f16, f8, f4, hidden, value)
    assert not _unused(net)

    @jax.jit
    def parts(variables, image, masks, hidden):
        apply = functools.partial(_XMem(XMEM).apply, variables)
        look = jax.tree.map(lambda x: x[0], apply(image[None], method="look"))
        found = apply(image, masks, look, hidden, method="remember")
        return look, found, apply(look, found[0], hidden, method="segment")

    inputs = _ours(images[0]), _ours(masks[1:3]), _ours(hidden)
    look, (found, deep), (logits, normal) = parts(xmem_from_torch(_xmem_state()), *inputs)
    keys = look.keys
    for ours, theirs in zip((keys.key, keys.shrinkage[..., None], keys.selection, look.deep, found, deep, normal,
                             logits[..., None]),
                            (key, shrinkage, selection, f16, value, renewed, updated, logit), strict=True):  # fmt: skip
        _assert_close(ours, theirs)


def _predicted(system, variables, images, masks):
    predict = jax.jit(system.predict)
    memory = system.start(variables, Frame(_ours(images[0])), _ours(masks))
    for image in images:
        memory, prediction = predict(variables, memory, Frame(_ours(image)))
    return prediction.masks


def _pairs(masks):
    """The mask of each object, and the sum of the others."""
    return [(masks[i : i + 1], masks[1:].sum(axis=0, keepdims=True) - masks[i : i + 1]) for i in range(1, len(masks))]


def test_stcn_follows_objects_as_the_published_one_does():
    """Four frames, of which the first and the third are remembered."""
    net, (images, masks) = published.STCN(_stcn_state()), _scene(4)
    keys, values, p = [], [[] for _ in range(OBJECTS)], masks
    for t, image in enumerate(images):
        key, thin, f16, f8, f4 = net.encode_key(image)
        if t > 0:
            logits = [net.segment(net.read(keys, v, key), thin, f8, f4) for v in values]
            p = published.aggregate(published.sigmoid(published.enlarge(np.concatenate(logits), 4)))
        if t % MEMORY.every == 0:
            keys.append(key)
            for v, pair in zip(values, _pairs(p), strict=True):
                v.append(net.encode_value(image, f16, *pair))
    _assert_close(_predicted(stcn(STCN), stcn_from_torch(_stcn_state()), images, masks), p)


def test_xmem_follows_objects_as_the_published_one_does():
    """Two frames are segmented from the first; the second renews the sensory memory."""
    net, (images, masks) = published.XMem(_xmem_state()), _scene(2)
    images = np.concatenate([images, images[::-1][:1, :, ::-1]])
    config = XMemConfig(**THIN, hidden_width=HIDDEN, memory=MemoryConfig(every=5, frames=2, top_k=None))
    remembered, values, hidden = None, [], [np.zeros((HIDDEN, SIZE[0] // 16, SIZE[1] // 16))] * OBJECTS
    for image in images:
        key, shrinkage, selection, f16, f8, f4 = net.encode_key(image)
        if remembered is None:
            found = [net.encode_value(image, f16, h, *pair) for h, pair in zip(hidden, _pairs(masks), strict=True)]
            (values, hidden), remembered = zip(*found, strict=True), (key, shrinkage)
            continue
        found = [net.segment(f16, f8, f4, h, net.read(*remembered, v, key, selection))
                 for h, v in zip(hidden, values, strict=True)]  # fmt: skip
        logits, hidden = zip(*found, strict=True)
        p = published.aggregate(published.sigmoid(published.enlarge(np.concatenate(logits), 4)))
    _assert_close(_predicted(xmem(config), xmem_from_torch(_xmem_state()), images, masks), p)


def test_every_leaf_of_the_systems_is_filled():
    match_variables(stcn_from_torch({f"module.{k}": v for k, v in _stcn_state().items()}), _expected(stcn(STCN)))
    match_variables(xmem_from_torch(_xmem_state()), _expected(xmem(XMEM)))
    plain = STCNConfig(**THIN, attention=False)
    match_variables(stcn_from_torch(_stcn_state(attention=False)), _expected(stcn(plain)))


def test_a_single_object_net_does_not_see_the_others():
    state = _stcn_state(masks=1)
    kernel = stcn_from_torch(state)["params"]["value"]["mask_conv"]["kernel"]
    np.testing.assert_array_equal(kernel[3, 1, 0], state["value_encoder.conv1.weight"][:, 3, 3, 1])
    assert kernel.shape == (7, 7, 2, WIDTH) and not kernel[:, :, 1].any()


def test_whatever_is_no_such_net_is_told_in_one_line():
    state = dict(_stcn_state())
    del state["decoder.pred.bias"], state["value_encoder.layer2.0.downsample.0.bias"]
    with pytest.raises(InputError, match=r"STCN \(missing: value_encoder\.layer2\.0\.downsample\.0\.bias and 1 more\)"):
        stcn_from_torch(state)
    with pytest.raises(InputError, match=r"XMem \(unknown: decoder\.more\.weight\)"):
        xmem_from_torch({**_xmem_state(), "decoder.more.weight": np.zeros(1)})
    with pytest.raises(InputError, match="unknown: decoder.fuser.attention"):
        stcn_from_torch(_xmem_state())
    with pytest.raises(InputError, match="6 input channels: want 5") as told:
        xmem_from_torch({**_xmem_state(), "value_encoder.conv1.weight": np.zeros((WIDTH, 6, 7, 7), np.float32)})
    assert "\n" not in str(told.value)
