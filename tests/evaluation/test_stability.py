"""T in a report: which masks it is made of, in chunks and in processes."""

import json
import math
import shutil

import pytest
from evaluation.scenes import moving, score, square, write

from jaxvos.evaluation import _stability
from jaxvos.metrics import sequence_stability


def _ell(shift, leg):
    """A box with a leg that grows."""
    mask = square(1, shift=shift)
    mask[12 : 12 + leg, 5 + shift : 9 + shift] = 1
    return mask


@pytest.fixture
def folders(tmp_path):
    drawn = [_ell(i % 7, 3 + i % 5) for i in range(30)]
    return write(tmp_path / "drawn", drawn), write(tmp_path / "truth", [_ell(i % 7, 4) for i in range(30)])


def test_t_is_of_the_predictions_after_the_first_ground_truth(folders):
    report = score(*folders)
    masks = [_ell(0, 4), *(_ell(i % 7, 3 + i % 5) for i in range(1, 29))]
    expected = sequence_stability(mask > 0 for mask in masks)
    assert report.objects[0].t_frames == tuple(expected) and len(expected) == 28
    assert report.t == pytest.approx(5 * expected.mean()) and report.t > 0
    assert score(*folders, score_all_frames=True).objects[0].t_frames == tuple(expected)


def test_t_may_be_chosen(folders):
    drawn, truth = folders
    assert not score(drawn, truth, stability=False).objects[0].t_frames
    assert not score(drawn, truth, protocol="davis17").objects[0].t_frames
    assert score(drawn, truth, protocol="davis17", stability=True).t == score(drawn, truth).t


def test_processes_equal_one(folders, monkeypatch):
    alone = score(*folders, workers=1)
    monkeypatch.setattr(_stability, "_WORTH_PROCESSES", 1)
    assert score(*folders, workers=2) == alone


def test_objects_without_an_outline_do_not_count(tmp_path):
    truth = write(tmp_path / "truth", moving(other=2))
    report = score(write(tmp_path / "drawn", moving()), truth, stability=True)
    first, second = report.objects
    assert all(math.isnan(value) for value in second.t_frames) and math.isnan(second.t)
    assert report.t == first.t == 0


@pytest.mark.data
def test_golden(golden_dir, tmp_path):
    expected = json.loads((golden_dir / "vos" / "tstab.json").read_text())["runs"]["pred/dog-agility"]
    shutil.copytree(golden_dir / "vos" / "pred" / "dog-agility", tmp_path / "dog-agility")
    report = score(tmp_path, golden_dir / "vos" / "gt" / "dog-agility")
    assert report.t == pytest.approx(expected["matlab_mean_x5"], abs=0.005)
