"""The script as a user types it: its rows, a run that is a model, and what is refused."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from jaxvos.models import abstract_variables, load_model
from jaxvos.systems import mask_vos
from jaxvos.training import read_log

SCRIPT = Path(__file__).resolve().parents[2] / "experiments" / "mask_vos.py"


def _run(*args):
    command = [sys.executable, str(SCRIPT), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("experiment_mask_vos", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("videos"), np.random.default_rng(0)
    for name, count in (("bear", 6), ("bus", 7), ("cut", 2)):
        (root / name).mkdir()
        for index in range(count):
            cells = rng.integers(0, 255, (6, 8, 3), np.uint8).repeat(8, axis=0).repeat(8, axis=1)
            Image.fromarray(cells).save(root / name / f"{index:05d}.png")
    return root


def test_every_row_is_another(script):
    rows = [config for _, config in script.PRESETS.values()]
    assert len(rows) > 30 and all(first != second for i, first in enumerate(rows) for second in rows[:i])
    assert script.PRESETS["paper"][1] is script.PAPER and script.PAPER.recipe.refresh == 10 * script.EPOCH
    assert script.PRESETS["corr"][1].recipe.phases == "correspondence"
    assert script.PRESETS["corr"][1].system.memory.rounds == 0


def test_every_row_can_be_built_and_has_the_nets_that_it_names(script):
    """Counted in parameters: ResNets as torchvision has them, less the classifier, and the fourth stage of the 50."""
    counts = {}
    for _, config in script.PRESETS.values():
        system = mask_vos(config.system)
        if config.system.net not in counts:
            tree = abstract_variables(system)["params"]
            counts[config.system.net] = {part: _count(tree[part]) for part in tree} | {"all": _count(tree)}
    of = {name: counts[config.system.net] for name, (_, config) in script.PRESETS.items()}
    assert of["paper"]["encoder"] == 11_689_512 - 513_000
    assert of["resnet50"]["encoder"] == 25_557_032 - 2_049_000 - 14_964_736
    assert of["lite"]["all"] < 0.5 * of["paper"]["all"] and of["tiny"]["all"] < 0.01 * of["paper"]["all"]
    assert of["rounds0"]["all"] < of["paper"]["all"] == of["corr"]["all"] == of["ot_box"]["all"]
    assert len(counts) == 5


def _count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(("args", "words"), [
    (("tiny", "--workdir", "RUN"), "give --data.videos and --workdir"),
    (("tiny", "--data.videos", "VIDEOS"), "give --data.videos and --workdir"),
    (("tiny", "--workdir", "RUN", "--data.videos", "/nowhere"), "there is no video or folder /nowhere"),
    (("tiny", "--workdir", "RUN", "--data.videos", "VIDEOS", "--weights", "none.pth"), "none.pth"),
    (("tiny", "--workdir", "RUN", "--recipe.refresh", "0"), "refresh 0"),
])  # fmt: skip
def test_wrong_input_is_one_line_and_no_model(tmp_path, videos, args, words):
    places = {"RUN": tmp_path / "run", "VIDEOS": videos}
    out = _run(*(places.get(arg, arg) for arg in args))
    assert out.returncode == 2, out.stderr
    assert words in out.stderr and len(out.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_is_a_model(videos, tmp_path):
    steps = ("--training.num-steps", 2, "--joint-training.num-steps", 2, "--training.log-every", 1,
             "--joint-training.log-every", 1)  # fmt: skip
    options = ("--workdir", tmp_path / "run", "--data.videos", videos, *steps)
    out = _run("tiny", *options)
    assert out.returncode == 0, out.stderr
    assert "skipped cut: fewer than 3 frames" in out.stdout
    for phase in ("correspondence", "joint"):
        assert [step for step, _ in read_log(tmp_path / "run" / phase)["loss"]] == [1, 2]
        assert (tmp_path / "run" / f"{phase}.png").read_bytes().startswith(b"\x89PNG")
    model = load_model(tmp_path / "run")
    assert model.name == "run" and model.config.net.decoder_widths == (8, 8, 8)
    assert model.metadata["data"].startswith("2 videos of ") and model.metadata["run"]["system"]
    assert len(json.loads((tmp_path / "run" / "health.json").read_text())) == 1
    again = _run("tiny", *options)
    assert again.returncode == 0 and "compiled the step" not in again.stdout, again.stderr
    jax.tree.map(np.testing.assert_array_equal, load_model(tmp_path / "run").variables, model.variables)
