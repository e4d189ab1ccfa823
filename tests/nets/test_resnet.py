"""ResNets against torchvision's layout, by golden values, and the two readers of PyTorch files."""

import json
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvos.errors import InputError
from jaxvos.nets import ResNet, read_torch, resnet_from_torch

_DILATIONS = {
    "resnet18_w2": (18, (False, False, False)),
    "resnet50_w2": (50, (False, False, False)),
    "resnet50_w2_dil_0_1_1": (50, (False, True, True)),
    "resnet50_w2_dil_0_0_1": (50, (False, False, True)),
}


def _arrays(path):
    with np.load(path) as arrays:
        return dict(arrays)


def _normalized(image_u8):
    x = image_u8.astype(np.float32) / 255
    return (x - np.array([0.485, 0.456, 0.406], np.float32)) / np.array([0.229, 0.224, 0.225], np.float32)


@pytest.mark.data
@pytest.mark.parametrize("name", _DILATIONS)
def test_thin_nets_equal_torch_on_every_stage(golden_dir, name):
    golden = _arrays(golden_dir / "nets" / "resnet_tiny.npz")
    depth, dilate = _DILATIONS[name]
    prefix = f"{'_'.join(name.split('_')[:2])}/w/"
    variables = resnet_from_torch({k.removeprefix(prefix): golden[k] for k in golden if k.startswith(prefix)})
    x = _normalized(golden["input_u8"])
    features = ResNet(depth, 2, dilate).apply(variables, jnp.stack([x, 0.5 * x[::-1, ::-1]]))
    for stage, actual in features.items():
        key = f"{name}/out/layer{stage - 1}"
        if key in golden:  # the dilated nets share the first stages of the plain one
            np.testing.assert_allclose(actual.transpose(0, 3, 1, 2), golden[key], atol=2e-5)


def _recipe(spec):
    """The weights that the golden values were computed with (nets.json, "recipe")."""
    random = np.random.RandomState(spec["seed"])
    state = {}
    for key, shape in spec["keys"]:
        if key.endswith("num_batches_tracked"):
            continue
        module = key.split(".")[-2]
        if len(shape) >= 2:
            value = random.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        elif key.endswith("running_var"):
            value = 1 + 0.5 * random.random_sample(shape)
        elif key.endswith("running_mean"):
            value = 0.1 * random.standard_normal(shape)
        elif key.endswith("weight") and (module.startswith("bn") or key.endswith("downsample.1.weight")):
            value = 0.6 + 0.1 * random.standard_normal(shape)
        else:
            value = 0.1 * random.standard_normal(shape)
        state[key] = value.astype(np.float32)
    return state


@pytest.mark.data
@pytest.mark.parametrize("depth", [18, 50])
def test_full_nets_equal_torch(golden_dir, depth):
    golden = _arrays(golden_dir / "nets" / "resnet_full.npz")
    state = _recipe(json.loads((golden_dir / "nets" / "nets.json").read_text())[f"resnet{depth}"])
    features = ResNet(depth).apply(resnet_from_torch(state), jnp.array(_normalized(golden["input_u8"]))[None])
    for stage, actual in features.items():
        name = f"resnet{depth}_layer{stage - 1}"
        part = actual[..., golden[f"{name}_channels"]].transpose(0, 3, 1, 2)
        np.testing.assert_allclose(part, golden[f"{name}_part"], atol=2e-4)
        np.testing.assert_allclose(actual.mean((0, 1, 2)), golden[f"{name}_mean"], atol=2e-4)


def test_conversion_fills_every_parameter_of_every_depth():
    for depth, blocks in ((34, 16), (101, 33)):
        shapes = jax.eval_shape(ResNet(depth).init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
        state = _torch_names(shapes)
        converted = resnet_from_torch(state)
        assert jax.tree.map(np.shape, converted) == jax.tree.map(np.shape, dict(shapes))
        assert len({key.split(".")[0] + key.split(".")[1] for key in state if key.startswith("layer")}) == blocks


@pytest.mark.parametrize("depth", [18, 50])
def test_stages_that_keep_their_size_have_the_same_parameters(depth, key):
    """Only the strides differ: what comes before is the same, and what comes after is as large as it."""
    keeps = [(False, False, False), (False, True, True), (False, False, True), (True, True, True)]
    nets, images = [ResNet(depth, 2, keep_size=keep) for keep in keeps], jnp.ones((1, 64, 96, 3))
    trees = [jax.eval_shape(net.init, key, images) for net in nets]
    assert all(tree == trees[0] for tree in trees)
    sizes = [[x.shape[1] for x in jax.eval_shape(net.apply, trees[0], images).values()] for net in nets]
    assert sizes == [[16, 8, 4, 2], [16, 8, 8, 8], [16, 8, 4, 4], [16, 16, 16, 16]]


def test_a_net_that_keeps_its_size_is_the_plain_one_up_to_there(key):
    images = jax.random.uniform(key, (1, 32, 32, 3))
    plain, kept = ResNet(18, 2), ResNet(18, 2, keep_size=(False, True, True))
    variables = jax.jit(plain.init)(key, images)
    before, after = (jax.jit(net.apply)(variables, images) for net in (plain, kept))
    for stage in (2, 3):
        np.testing.assert_allclose(after[stage], before[stage], atol=1e-6)
    assert np.abs(after[4][:, ::2, ::2] - before[4]).max() > 1e-3  # the second convolution has nearer neighbours


def _torch_names(variables):
    leaves = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    state = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        *modules, name = (p.key for p in path[1:])
        value = np.zeros(leaf.shape, np.float32)
        value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value
        modules = [m.replace("_", ".") if m.startswith(("layer", "downsample")) else m for m in modules]
        state[".".join([*modules, leaves[name]])] = value
    return state


def test_zip_archives_are_read_and_code_is_refused(tmp_path):
    values = np.arange(6, dtype=np.float32)
    # a state dict {"w": tensor of shape (3, 2), transposed view of the storage}, as torch.save writes it
    program = (
        b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n(("
        b"X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x06tQ"
        b"K\x00K\x03K\x02\x86K\x01K\x03\x86\x89}tRs."
    )
    with zipfile.ZipFile(tmp_path / "net.pth", "w") as archive:
        archive.writestr("net/data.pkl", program)
        archive.writestr("net/data/0", values.tobytes())
    np.testing.assert_array_equal(read_torch(tmp_path / "net.pth")["w"], values.reshape(2, 3).T)

    with zipfile.ZipFile(tmp_path / "evil.pth", "w") as archive:
        archive.writestr("net/data.pkl", b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(InputError, match="not a PyTorch state dict"):
        read_torch(tmp_path / "evil.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(InputError, match="text.pth"):
        read_torch(tmp_path / "text.pth")
    with pytest.raises(InputError, match="no such weights"):
        read_torch(tmp_path / "none.pth")
