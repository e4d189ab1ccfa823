"""`jaxvos export`: what it says and writes, that every option does something, and what it refuses."""

import json
import zipfile

import pytest


@pytest.fixture
def refused(run, snapshot, tmp_path, tiny_stcn):
    """Exports something and expects to be refused, with the disk as it was."""

    def call(*options, model=tiny_stcn, output=None):
        before = snapshot()
        code, out, err = run("export", model, "-o", output or tmp_path / "out.zip", *options)
        assert code == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 1, err
        assert snapshot() == before
        return err

    return call


def _about(path):
    with zipfile.ZipFile(path) as file:
        return json.loads(file.read("about.json"))


def test_a_model(run, tmp_path, tiny_stcn):
    path = tmp_path / "new" / "model.zip"
    options = ("--size", "48x64", "--objects", "3", "--platforms", "cpu", "cuda", "tpu")
    code, out, err = run("export", tiny_stcn, "-o", path, *options)
    assert code == 0 and err == "" and [each.name for each in path.parent.iterdir()] == ["model.zip"]
    assert out.startswith("model: tiny-stcn; licence: CC0-1.0\nstart, predict, tell for frames of 48x64 (rows x col")
    assert f"umns), 3 objects, on cpu, cuda, tpu, in {path} (" in out
    about = _about(path)
    assert about["size"] == [48, 64] and about["objects"] == 3 and about["platforms"] == ["cpu", "cuda", "tpu"]

    assert run("export", tiny_stcn, "-o", path, "--size", "32x32", "--overwrite").code == 0
    assert _about(path)["size"] == [32, 32] and _about(path)["objects"] == 1


def test_proposals(run, tmp_path, tiny_dmm):
    path = tmp_path / "model.zip"
    assert run("export", tiny_dmm, "-o", path, "--num-proposals", "5", "--proposal-size", "7").code == 0
    frame = _about(path)["functions"]["predict"]["inputs"]["frame"]
    assert frame["proposals"]["masks"]["shape"] == [5, 7, 7] and frame["image"]["shape"] == [64, 64, 3]


def test_help_says_what_is_not_exported(run):
    code, out, _ = run("export", "--help")
    text = " ".join(out.split())
    assert code == 0 and all(word in text for word in (
        "MODEL", "-o FILE.zip, --output FILE.zip", "--size ROWSxCOLUMNS", "--objects", "--num-proposals",
        "--proposal-size", "--platforms cpu|cuda|rocm|tpu", "--overwrite", "Not exported are: training", "--online",
    ))  # fmt: skip


@pytest.mark.parametrize("size", ["480", "480x", "480,854", "-1x64", "64x64x3", "big"])
def test_sizes(refused, size):
    assert f"--size '{size}': give rows and columns, such as 480x854" in refused(f"--size={size}")


def test_options(refused, tiny_model):
    assert "frames of 8x64: give at least 16 rows and 16 columns" in refused("--size", "8x64")
    assert "there is no platform 'gpu': give some of cpu, cuda, rocm, tpu" in refused("--platforms", "cpu", "gpu")
    assert "no platform is named" in refused("--platforms")
    assert "a number of objects of 0" in refused("--objects", "0")
    assert "tiny wants no masks and has no use for a number of objects" in refused("--objects", "1", model=tiny_model)
    assert "has no use for a number of proposals" in refused("--num-proposals", "5")
    assert "has no use for a size of proposals" in refused("--proposal-size", "5")
    assert "unrecognized options: --online" in refused("--online")


def test_models_and_places(refused, tmp_path):
    assert "there is no model nonsense: give a .safetensors file" in refused(model="nonsense")
    assert "out.bin is not named as an archive: use .zip" in refused(output=tmp_path / "out.bin")
    (tmp_path / "folder.zip").mkdir()
    assert "folder.zip is a folder: name a file" in refused(output=tmp_path / "folder.zip")
    (tmp_path / "there.zip").write_text("mine")
    assert "there.zip exists: choose another file or add --overwrite" in refused(output=tmp_path / "there.zip")
    error = refused("--size", "32x32", output=tmp_path / "there.zip" / "out.zip")
    assert "cannot write" in error


def test_nothing_is_missing(run):
    assert "missing from jaxvos export: MODEL" in run("export").err
