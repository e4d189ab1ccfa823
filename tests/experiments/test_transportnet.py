"""The script as a user types it: presets, a run that stops and goes on, and what is refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxvos.models import load_model
from jaxvos.training import read_log

SCRIPT = Path(__file__).resolve().parents[2] / "experiments" / "transportnet.py"
FAST = ("--system.stages", "5", "--system.transport.num-iters", "2", "--data.synthetic.flow-source", "exact",
        "--training.log-every", "1")  # fmt: skip


def _run(*args):
    return subprocess.run([sys.executable, str(SCRIPT), *args], capture_output=True, text=True, env=dict(os.environ))


@pytest.mark.slow
def test_a_run_goes_on_and_is_a_model(tmp_path):
    workdir = tmp_path / "run"
    for steps in ("2", "3"):
        out = _run("tiny", "--workdir", str(workdir), "--training.num-steps", steps, *FAST)
        assert out.returncode == 0, out.stderr
    assert "going on from step 2" in out.stdout
    assert [step for step, _ in read_log(workdir)["loss"]] == [1, 2, 3]
    config = json.loads((workdir / "config.json").read_text())
    assert config["config"]["system"]["backbone_width"] == 8 and config["commit"]
    assert (workdir / "curves.png").read_bytes().startswith(b"\x89PNG")
    for source in (workdir, workdir / "model.safetensors"):
        assert load_model(source).config.stages == (5,)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("lightweight",), "there is no preset"),
        (("tiny", "--system.decoder-widht", "3"), "decoder-widht"),
        (("tiny", "--system.pyramid", "spp"), "spp"),
        (("tiny", "--data.davis", "/nowhere"), "/nowhere"),
        (("tiny", "--weights.appearance", "none.pth"), "none.pth"),
        (("tiny", "--system.backbone-app", "resnet50"), "differ in width"),
    ],
)
def test_wrong_input_is_one_line_and_nothing_is_written(tmp_path, args, words):
    out = _run(*args, *(("--workdir", str(tmp_path / "run")) if len(args) > 1 else ()))
    assert out.returncode == 2
    assert words in out.stderr and len(out.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()
