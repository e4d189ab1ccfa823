"""The script as a user types it: a run that is judged on held-out frames and ends as a model."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxvos.data import list_sequences, write_mask
from jaxvos.models import load_model
from jaxvos.system import Prediction, Proposals, System
from jaxvos.training import read_log

SCRIPT = Path(__file__).resolve().parents[2] / "experiments" / "mask_rcnn.py"


@pytest.fixture(scope="module")
def davis(tmp_path_factory):
    """Two sequences of noise in which a square stands for two objects, side by side."""
    root, rng = tmp_path_factory.mktemp("davis"), np.random.default_rng(0)
    for name in ("bear", "bus"):
        for index in range(5):
            path = root / f"JPEGImages/480p/{name}/{index:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (64, 96, 3), np.uint8)).save(path)
            mask = np.zeros((64, 96), np.uint8)
            mask[16:48, 24:48], mask[16:48, 48:72] = 1, 2
            write_mask(root / f"Annotations/480p/{name}/{index:05d}.png", mask)
    return root


def test_the_best_proposal_of_each_object_is_what_counts(davis):
    """One proposal is the whole of the first object and half of the two; nothing else is proposed."""
    spec = importlib.util.spec_from_file_location("experiment_mask_rcnn", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    boxes = jnp.array([[16.0, 16, 32, 48], [0, 0, 0, 0]])
    proposals = Proposals(boxes, jnp.ones((2, 14, 14)), jnp.array([0.9, 0.0]), jnp.array([True, False]))
    system = System(lambda key, clip: {}, lambda *a, **k: None,
                    lambda v, m, frame: (m, Prediction(jnp.zeros((64, 64, 2)), proposals=proposals)))  # fmt: skip
    scores = module.proposal_scores(system, list_sequences(davis)[1:], size=(64, 64))({}, 0)
    assert scores == {"best_iou": 0.5, "recall_50": 0.5, "recall_75": 0.5}


@pytest.mark.slow
def test_a_run_is_judged_and_is_a_model(davis, tmp_path):
    command = [sys.executable, str(SCRIPT), "tiny", "--workdir", str(tmp_path / "run"), "--data.davis", str(davis),
               "--data.held-out", "bus", "--training.num-steps", "2", "--training.log-every", "1"]  # fmt: skip
    out = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    assert out.returncode == 0, out.stderr
    log = read_log(tmp_path / "run")
    assert [step for step, _ in log["loss"]] == [1, 2] and 0 <= log["eval/best_iou"][0][1] <= 1
    model = load_model(tmp_path / "run" / "model.safetensors")
    assert model.name == "model" and model.config.backbone == "resnet18" and "bus" in model.metadata["data"]
