"""The script as a user types it: a run that is a model, the study in small, and what is refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxvos.models import load_model
from jaxvos.training import read_log

SCRIPT = Path(__file__).resolve().parents[2] / "experiments" / "dmm_net.py"


def _run(*args):
    return subprocess.run([sys.executable, str(SCRIPT), *args], capture_output=True, text=True, env=dict(os.environ))


@pytest.mark.slow
def test_a_run_is_a_model(tmp_path):
    workdir = tmp_path / "run"
    out = _run("tiny", "--workdir", str(workdir), "--training.num-steps", "2", "--training.log-every", "1")
    assert out.returncode == 0, out.stderr
    assert [step for step, _ in read_log(workdir)["refined_iou"]] == [1, 2]
    for source in (workdir, workdir / "model.safetensors"):
        assert load_model(source).config.match_width == 8


@pytest.mark.slow
def test_the_study_trains_and_tests_each_condition_on_the_same_clips(tmp_path):
    out = _run("tiny_study", "--workdir", str(tmp_path / "study"))
    assert out.returncode == 0, out.stderr
    table = json.loads((tmp_path / "study" / "study.json").read_text())["J"]
    assert list(table) == ["fixed features, hungarian", "qp, hungarian"]
    assert all(len(scores) == 1 and 0 < scores[0] < 1 for scores in table.values())
    assert out.stdout.count("+-") == 2


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("tiny", "--system.refiner", "heavy", "--system.backbone", "efficientnet_lite0"), "needs a ResNet"),
        (("tiny", "--weights", "none.pth"), "none.pth"),
    ],
)
def test_wrong_input_is_one_line_and_nothing_is_written(tmp_path, args, words):
    out = _run(*args, *(("--workdir", str(tmp_path / "run")) if len(args) > 1 else ()))
    assert out.returncode == 2
    assert words in out.stderr and len(out.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()
