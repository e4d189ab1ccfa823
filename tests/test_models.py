"""Models are found by name, file or run, and a model whose parts do not belong together is refused."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import jaxvos.models
from jaxvos.errors import InputError
from jaxvos.models import (
    DEFAULT,
    abstract_variables,
    build_system,
    embedded_models,
    find_embedded,
    load_model,
    pretrained_start,
    save_model,
)
from jaxvos.nets import backbone, pretrained
from jaxvos.systems import MaskVOSConfig, MaskVOSNetConfig, STCNConfig, TransportNetConfig, mask_vos, stcn
from jaxvos.training import Checkpoints, ExperimentConfig, TrainState, describe_run, launch, read_shapes


def _story(path):
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return json.loads(file.metadata()["metadata"])


def _rewrite(source, target, *, drop="", **changes):
    """Copies a weights file with another story."""
    story = _story(source)
    story["config"] |= changes.pop("config", {})
    save_file(load_file(source), target, metadata={"metadata": json.dumps({
        key: value for key, value in (story | changes).items() if key != drop})})  # fmt: skip
    return target


def test_a_weights_file(tiny_model):
    model = load_model(tiny_model)
    assert model.name == "tiny" and model.config.decoder_width == 16 and model.config.stages == (4, 5)
    assert model.metadata["licence"] == "CC0-1.0" and model.metadata["system"] == "transportnet"
    for leaf, expected in zip(jax.tree.leaves(model.variables), load_file(tiny_model).values(), strict=False):
        assert isinstance(leaf, jax.Array) and leaf.dtype == np.float32 and expected.dtype == np.float32


def test_what_is_saved_is_what_is_loaded(tiny_model, tmp_path):
    model = load_model(tiny_model)
    story = {"data": "none", "scores": {"J": 0.5}}
    for half in (False, True):
        save_model(tmp_path / "again.safetensors", model.variables, system="transportnet", config=model.config,
                   metadata=story, half=half)  # fmt: skip
        again = load_model(str(tmp_path / "again.safetensors"))
        assert again.config == model.config and again.metadata["scores"] == {"J": 0.5}
        equal = np.testing.assert_allclose if half else np.testing.assert_array_equal
        tolerance = {"rtol": 1e-3, "atol": 1e-6} if half else {}
        jax.tree.map(lambda a, b: equal(a, b, **tolerance), again.variables, model.variables)  # noqa: B023
    assert (tmp_path / "again.safetensors").stat().st_size < 0.6 * tiny_model.stat().st_size


def test_abstract_variables_are_those_of_the_system(tiny_model):
    model = load_model(tiny_model)
    shapes = jax.tree.map(lambda leaf: leaf.shape, abstract_variables(model.system))
    assert shapes == jax.tree.map(lambda leaf: leaf.shape, model.variables)


def test_the_embedded_default():
    model = load_model()
    assert model.name == DEFAULT == load_model(DEFAULT).name
    assert model.metadata["licence"] and model.metadata["data"]


def test_an_embedded_name(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(jaxvos.models, "_FOLDER", tmp_path)
    with pytest.raises(InputError, match=f"no model {DEFAULT}: .* .none is embedded.$"):
        load_model()
    shutil.copy(tiny_model, tmp_path / "small.safetensors")
    assert load_model("small").name == "small"
    with pytest.raises(InputError, match="there is no model smal: .*embedded model .small.$"):
        load_model("smal")
    assert embedded_models() == {"small": tmp_path / "small.safetensors"}
    assert find_embedded("small") == tmp_path / "small.safetensors"
    for name in ("smal", str(tiny_model.with_suffix(""))):  # a file elsewhere is not embedded
        with pytest.raises(InputError, match=f"there is no embedded model '{name}'.* there are: small$"):
            find_embedded(name)


def test_the_name_of_a_system_is_that_of_its_embedded_model():
    for name, path in embedded_models().items():
        system = _story(path)["system"]
        assert find_embedded(system) == path == find_embedded(name)
    with pytest.raises(InputError, match="no embedded model 'stnc'; did you mean 'stcn'. there are: dmm-net-lite, "):
        find_embedded("stnc")


def test_a_system_without_its_weights(tiny_model):
    """Is that of the model, from what the header says."""
    shapes, story = read_shapes(tiny_model)
    model = load_model(tiny_model)
    config, system = build_system(story, tiny_model)
    assert config == model.config and system is model.system
    arrays = load_file(tiny_model)
    assert shapes == {name: array.shape for name, array in arrays.items()} and story == _story(tiny_model)
    with pytest.raises(InputError, match="is of a system 'matnet'"):
        build_system(story | {"system": "matnet"}, tiny_model)


def test_headers_that_are_none(tmp_path):
    (tmp_path / "text").write_text("hello")
    for name, match in (("text", "is not a safetensors file"), ("none", "does not exist")):
        with pytest.raises(InputError, match=match):
            read_shapes(tmp_path / name)


@pytest.fixture(scope="module")
def workdir(tiny_model, tmp_path_factory):
    """The folder of a run, as `launch` and `fit` leave it, without the minute that compiling a step would take."""

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config(ExperimentConfig):
        """A run."""

        system_name: str = "transportnet"
        """Which."""
        system: TransportNetConfig = load_model(tiny_model).config
        """The net."""

    def main(config):
        state = TrainState(jnp.array(1), load_model(tiny_model).variables, {}, jax.random.key(0))
        checkpoints = Checkpoints(config.workdir / "checkpoints")
        checkpoints.save(1, state, describe_run())
        checkpoints.close()

    path = tmp_path_factory.mktemp("runs") / "first.run"
    launch({"one": ("one step", Config())}, main, ["one", "--workdir", str(path)])
    return path


def test_the_folder_of_a_run(workdir, tiny_model, monkeypatch):
    model = load_model(workdir)
    assert model.name == "first.run" and model.config == load_model(tiny_model).config
    assert model.metadata["versions"] and model.system is load_model(tiny_model).system
    for place in (workdir / "checkpoints", workdir / "checkpoints" / "1"):
        assert load_model(place).config == model.config
    monkeypatch.chdir(workdir)
    assert load_model(".").name == "first.run"


def test_a_run_that_is_broken(workdir, tmp_path):
    run = shutil.copytree(workdir, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())

    def refused(match):
        with pytest.raises(InputError, match=match) as error:
            load_model(run)
        assert "\n" not in str(error.value)

    config["config"]["system"]["decoder_width"] = 24
    (run / "config.json").write_text(json.dumps(config))
    refused("checkpoint of another configuration: .* has shape")
    (run / "config.json").write_text('{"config": {}}')
    refused("does not say which system")
    for text in ("{", "{}"):
        (run / "config.json").write_text(text)
        refused("cannot be read")
    (run / "config.json").unlink()
    refused("does not say which system")
    shutil.rmtree(run / "checkpoints")
    refused("holds no checkpoint")


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"drop": "system"}, "does not say which system it belongs to: save it with"),
     ({"drop": "config"}, "does not say which system it belongs to"),
     ({"system": "matnet"}, "is of a system 'matnet', and this version of jaxvos has transportnet"),
     ({"config": {"width": 3}}, "has a configuration of another version of jaxvos: .*width"),
     ({"config": {"decoder_width": "wide"}}, "has a configuration of another version of jaxvos"),
     ({"config": {"decoder_width": 32}}, "is a checkpoint of another configuration: .*decoder.* has shape"),
     ({"config": {"decoder_width": 0}}, "cannot be built|checkpoint of another"),  # newer Flax builds such a net
     ({"config": {"decoder_width": -1}}, "has a configuration that cannot be built"),
     ({"config": {"backbone_app": "resnet50"}}, "cannot be built: resnet50 and resnet18 differ in width")],
)  # fmt: skip
def test_files_whose_parts_do_not_belong_together(tiny_model, tmp_path, changes, message):
    path = _rewrite(tiny_model, tmp_path / "other.safetensors", **changes)
    with pytest.raises(InputError, match=message) as error:
        load_model(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_arrays_that_are_missing_or_unknown(tiny_model, tmp_path):
    arrays, story = load_file(tiny_model), {"metadata": json.dumps(_story(tiny_model))}
    name = next(iter(arrays))
    save_file({key: value for key, value in arrays.items() if key != name}, tmp_path / "less.safetensors", story)
    save_file({**arrays, "params/more": arrays[name]}, tmp_path / "more.safetensors", story)
    with pytest.raises(InputError, match=f"another configuration: the weights lack {name}"):
        load_model(tmp_path / "less.safetensors")
    with pytest.raises(InputError, match="another configuration: the weights hold params/more"):
        load_model(tmp_path / "more.safetensors")


def test_files_that_are_no_models(tiny_model, tmp_path):
    def refused(path, match):
        with pytest.raises(InputError, match=match) as error:
            load_model(path)
        assert "\n" not in str(error.value)

    for name, content in (("text", b"hello"), ("empty", b""), ("cut", tiny_model.read_bytes()[:-100])):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, "is not a safetensors file")
    save_file({"x": np.zeros(1, np.float32)}, tmp_path / "foreign.safetensors", {"format": "pt"})
    refused(tmp_path / "foreign.safetensors", "does not say which system")
    save_file({"x": np.zeros(1, np.float32)}, tmp_path / "odd.safetensors", {"metadata": "{"})
    refused(tmp_path / "odd.safetensors", "cannot be read")
    refused(tmp_path, "holds no checkpoint")


# ---- where encoders begin --------------------------------------------------------------------------------------
@pytest.fixture
def file(monkeypatch):
    """A file that holds a whole encoder, each array of it full of a number of its own."""

    def read(name, source):
        if source != "net.pth":
            return pretrained(name, source)
        shapes = jax.eval_shape(backbone(name).init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
        leaves, tree = jax.tree.flatten(shapes)
        return jax.tree.unflatten(tree, [np.full(leaf.shape, i, np.float32) for i, leaf in enumerate(leaves)])

    monkeypatch.setattr(jaxvos.models, "pretrained", read)
    return read


def test_pretrained_encoders_as_far_as_the_system_has_them(file):
    """STCN ends before the fourth stage, and its encoder of frames with masks lies deeper in the tree."""
    system = stcn(STCNConfig(key_encoder="resnet18", value_encoder="resnet18"))
    start = pretrained_start(system, {"encoder": "resnet18", "value/encoder": "resnet18"}, "net.pth")
    whole, expected = file("resnet18", "net.pth"), abstract_variables(system)
    assert set(start) == {"params", "batch_stats"}
    for part, tree in start.items():
        assert set(tree) == {"encoder", "value"} and set(tree["value"]) == {"encoder"}
        for found, wanted in ((tree["encoder"], expected[part]["encoder"]),
                              (tree["value"]["encoder"], expected[part]["value"]["encoder"])):  # fmt: skip
            assert set(found) == set(wanted) < set(whole[part])
            jax.tree.map(np.testing.assert_array_equal, found, {name: whole[part][name] for name in found})
            assert jax.tree.map(np.shape, found) == jax.tree.map(lambda leaf: leaf.shape, wanted)
    with_all = mask_vos(MaskVOSConfig(net=MaskVOSNetConfig(encoder="resnet18")))
    assert set(pretrained_start(with_all, {"encoder": "resnet18"}, "net.pth")["params"]["encoder"]) == set(
        whole["params"])  # fmt: skip


def test_a_single_encoder_is_all_that_is_given(file):
    system = stcn(STCNConfig(key_encoder="resnet50", value_encoder="resnet18"))
    start = pretrained_start(system, {"value/encoder": "resnet18"}, "net.pth")
    assert {part: set(tree) for part, tree in start.items()} == {"params": {"value"}, "batch_stats": {"value"}}
    assert pretrained_start(system, {}, "net.pth") == {}


def test_pretrained_weights_that_are_missing(tmp_path):
    system = stcn(STCNConfig(key_encoder="resnet18", value_encoder="resnet18"))
    (tmp_path / "text.pth").write_text("hello")
    for source, match in ((tmp_path / "none.pth", "none.pth"), (tmp_path / "text.pth", "text.pth"),
                          ("imagenet", "no ImageNet weights of resnet18 come with a package")):  # fmt: skip
        with pytest.raises(InputError, match=match) as error:
            pretrained_start(system, {"encoder": "resnet18"}, source)
        assert "\n" not in str(error.value)


def test_the_folder_of_a_run_of_several_phases(tiny_mask_vos, tmp_path, monkeypatch):
    """Is the file in it, under the name of the folder; a run of one phase is its latest checkpoint."""
    run = tmp_path / "my.run"
    (run / "correspondence" / "checkpoints").mkdir(parents=True)
    shutil.copy(tiny_mask_vos, run / "model.safetensors")
    model = load_model(run)
    assert model.name == "my.run" and model.config == load_model(tiny_mask_vos).config
    monkeypatch.chdir(run)
    assert load_model(".").name == "my.run" == load_model("model.safetensors").name
    (run / "model.safetensors").unlink()
    with pytest.raises(InputError, match="holds no checkpoint"):
        load_model(run)
    shutil.copy(tiny_mask_vos, run / "model.safetensors")
    (run / "checkpoints").mkdir()
    with pytest.raises(InputError, match="holds no checkpoint"):
        load_model(run)
