"""The scripts of flow and of SegFlow as a user types them: runs that are models, tables, and what is refused."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from jaxvos.data import write_flow
from jaxvos.models import load_model
from jaxvos.training import read_log

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"


def _run(script, *args):
    command = [sys.executable, str(EXPERIMENTS / f"{script}.py"), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))


@pytest.mark.slow
def test_a_run_of_pwc_net_is_a_model(tmp_path):
    out = _run("pwc_net", "tiny", "--workdir", tmp_path, "--training.num-steps", 2, "--training.log-every", 1)
    assert out.returncode == 0, out.stderr
    assert [step for step, _ in read_log(tmp_path)["eval/epe"]] == [2]
    for source in (tmp_path, tmp_path / "model.safetensors"):
        assert load_model(source).config.radius == 2


@pytest.mark.slow
@pytest.mark.parametrize("joint", [False, True])
def test_phases_of_segflow_follow_one_another_and_are_not_repeated(tmp_path, joint):
    steps = [f"--{which}.{name}" for which in ("training", "flow-training") for name in ("num-steps", "eval-every")]
    options = [x for name in steps for x in (name, 2)]
    options += ["--joint", "--flow.keep-masks"] if joint else []
    first = _run("segflow", "tiny", "--workdir", tmp_path, *options)
    assert first.returncode == 0, first.stderr
    phases = ["joint"] if joint else ["round1_flow", "round1_masks"]
    assert sorted(path.parent.name for path in tmp_path.glob("*/model.safetensors")) == phases
    model = load_model(tmp_path / "model.safetensors")
    before, after = (load_model(tmp_path / phase / "model.safetensors").variables["params"] for phase in (
        phases[-1], phases[0]))  # fmt: skip
    if not joint:  # the flow phase, which is the last, left the segmentation branch alone
        np.testing.assert_array_equal(before["scores_5"]["own"]["kernel"], after["scores_5"]["own"]["kernel"])
        assert (before["flow_net"]["conv1"]["kernel"] != after["flow_net"]["conv1"]["kernel"]).any()
    np.testing.assert_array_equal(model.variables["params"]["flow_net"]["conv1"]["kernel"],
                                  after["flow_net"]["conv1"]["kernel"])  # fmt: skip
    written = (tmp_path / phases[-1] / "model.safetensors").stat().st_mtime_ns
    again = _run("segflow", "tiny", "--workdir", tmp_path, *options)
    assert again.returncode == 0 and (tmp_path / phases[-1] / "model.safetensors").stat().st_mtime_ns == written


@pytest.mark.slow
def test_the_study_prints_its_table(tmp_path):
    out = _run("segflow_study", "--workdir", tmp_path, "--seeds", 0, "--steps", 6, "--clips", 1, "--online-steps", 1,
               "--online-clips", 1)  # fmt: skip
    assert out.returncode == 0, out.stderr
    table = (tmp_path / "table.txt").read_text().splitlines()
    assert len(table) == 9 and all("+-" in line for line in table[1:]) and "EPE" in table[0]


def test_middlebury_pairs(tmp_path, tiny_pwc):
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8), (64, 48), interpolation=cv2.INTER_CUBIC)
    pair = tmp_path / "pairs" / "Shift"
    pair.mkdir(parents=True)
    cv2.imwrite(str(pair / "frame10.png"), image)
    cv2.imwrite(str(pair / "frame11.png"), np.roll(image, 2, axis=1))
    write_flow(pair / "flow10.flo", np.broadcast_to(np.float32([2, 0]), (48, 64, 2)))
    out = _run("middlebury", tmp_path / "pairs", "--models", tiny_pwc, "--output", tmp_path / "pairs.png")
    assert out.returncode == 0, out.stderr
    rows = {line.split()[0]: float(line.split()[-1]) for line in out.stdout.splitlines()[1:]}
    assert rows["zero"] == pytest.approx(2.0) and rows["dis"] < 0.5 and len(rows) == 3
    assert (tmp_path / "pairs.png").exists()


@pytest.mark.parametrize(("script", "args", "words"), [
    ("pwc_net", ("tiny", "--weights", "none.pth"), "none.pth"),
    ("pwc_net", ("sintel", "--data.data-dir", "."), "sintel"),
    ("pwc_net", ("tiny", "--system.input-size", "60", "64"), "multiples of 64"),
    ("segflow", ("tiny", "--system.align", "crop"), "480x854"),
    ("segflow", ("tiny", "--weights.flow", "none.pth"), "none.pth"),
    ("segflow", ("tiny", "--flow.num-frames", "1"), "motion takes 2"),
    ("middlebury", (".",), "no PAIR/flow10.flo"),
])  # fmt: skip
def test_wrong_input_is_one_line_and_nothing_is_written(tmp_path, script, args, words):
    out = _run(script, *args, *(() if script == "middlebury" else ("--workdir", tmp_path / "run")))
    assert out.returncode == 2, out.stderr
    assert words in out.stderr and len(out.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()
