import json
import subprocess
import sys
from itertools import permutations
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jaxvos.errors import InputError
from jaxvos.metrics import (
    ProposalScores,
    assign_proposals,
    boundary_measure,
    region_similarity,
    score_proposals,
    statistics,
)
from jaxvos.metrics._boundary import _dilate, _disk, _pack

BENCHMARK = Path(__file__).resolve().parents[2] / "experiments/benchmarks/evaluation.py"
RUNS = ["schoolgirls_p12", "schoolgirls_p12+void", "schoolgirls_p20", "schoolgirls_p20+void", "schoolgirls_p3",
        "schoolgirls_p3+void", "soccerball_p4"]  # fmt: skip


def _blocks(rng, shape, labels):
    """A label map of overlapping boxes, some of which leave the frame."""
    found = np.zeros(shape, np.uint8)
    for label in labels:
        top, left = (int(rng.integers(0, size)) for size in shape)
        found[top : top + int(rng.integers(0, shape[0] + 1)), left : left + int(rng.integers(0, shape[1] + 1))] = label
    return found


def _sequence(seed, proposals, objects=3, frames=4):
    rng = np.random.default_rng(seed)
    return [(_blocks(rng, (17, 80), range(1, objects + 1)), _blocks(rng, (17, 80), range(1, proposals + 1)))
            for _ in range(frames)]  # fmt: skip


def _assign(sequence, labels=(1, 2, 3)):
    return assign_proposals([score_proposals(truth, drawn, labels) for truth, drawn in sequence])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.tuples(st.integers(1, 30), st.integers(1, 150)))
def test_every_pair_equals_the_measures_of_its_masks(seed, shape):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(range(1, 7))[: rng.integers(1, 5)].tolist()  # the others are background
    truth = _blocks(rng, shape, rng.permutation([*range(1, 7), 255])[: rng.integers(0, 8)])
    drawn = _blocks(rng, shape, rng.permutation(range(1, 21))[: rng.integers(0, 8)])
    scores = score_proposals(truth, drawn, labels)
    assert scores.j.shape == scores.f.shape == (drawn.max() + 1, len(labels))
    for proposal in range(drawn.max() + 1):
        segmentation = (drawn == proposal) & (proposal > 0)
        for column, label in enumerate(labels):
            pair = truth == label, segmentation
            assert scores.j[proposal, column] == region_similarity(*pair, void=truth == 255)
            assert scores.f[proposal, column] == boundary_measure(*pair, void=truth == 255)


def test_void_counts_for_no_proposal():
    truth, drawn = np.zeros((2, 12, 12), np.uint8)
    truth[2:6, 2:6], drawn[2:6, 2:10] = 1, 1
    assert score_proposals(truth, drawn, [1]).j[1, 0] == 0.5
    truth[2:6, 6:] = 255
    assert score_proposals(truth, drawn, [1]).j[1, 0] == score_proposals(truth, drawn, [1]).f[1, 0] == 1.0


def test_row_0_is_an_empty_mask():
    truth = np.zeros((9, 9), np.uint8)
    truth[3:6, 3:6] = 2
    scores = score_proposals(truth, np.zeros_like(truth), [1, 2])
    assert scores.j.tolist() == scores.f.tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("seed", range(4))
def test_the_best_of_all_assignments(seed):
    sequence = _sequence(seed, proposals=5)
    found = _assign(sequence)
    scores = [score_proposals(*frame, (1, 2, 3)) for frame in sequence]
    count = max(len(frame.j) for frame in scores)
    j, f = ([[measure[p] if p < len(measure) else measure[0] for p in range(count)] for measure in frames]
            for frames in zip(*scores, strict=True))  # fmt: skip
    means = (np.mean(j, axis=0) + np.mean(f, axis=0)) / 2
    best = max(sum(means[p, o] for o, p in enumerate(chosen)) for chosen in permutations(range(1, count), 3))
    assert sum(means[p, o] for o, p in enumerate(found.proposals)) == pytest.approx(best, abs=1e-12)
    for index, proposal in enumerate(found.proposals):
        np.testing.assert_array_equal(found.j[index], np.array(j)[:, proposal, index])
        np.testing.assert_array_equal(found.f[index], np.array(f)[:, proposal, index])


@pytest.mark.parametrize("seed", range(4))
def test_names_of_proposals_do_not_matter(seed):
    sequence = _sequence(seed, proposals=6)
    order = np.random.default_rng(seed).permutation(6)
    order[5], order[order.tolist().index(5)] = 5, order[5]  # the highest says how many there are
    names = np.array([0, *(order + 1)], np.uint8)
    plain, renamed = _assign(sequence), _assign([(truth, names[drawn]) for truth, drawn in sequence])
    np.testing.assert_array_equal(renamed.j, plain.j)
    np.testing.assert_array_equal(renamed.f, plain.f)
    assert renamed.proposals == tuple(names[list(plain.proposals)].tolist()) != plain.proposals


def test_order_of_objects_is_that_of_the_labels():
    sequence = _sequence(1, proposals=6)
    plain, turned = _assign(sequence), _assign(sequence, labels=(3, 1, 2))
    np.testing.assert_array_equal(turned.j, plain.j[[2, 0, 1]])
    assert turned.proposals == tuple(plain.proposals[index] for index in (2, 0, 1))


def test_objects_without_a_proposal_get_an_empty_mask():
    """It is wrong where the object is seen and right where it is not."""
    truth = np.zeros((2, 9, 9), np.uint8)
    truth[:, 1:4, 1:8], truth[0, 5:8, 1:8] = 1, 2
    found = _assign(list(zip(truth, np.where(truth == 1, truth, 0).astype(np.uint8), strict=True)), labels=(1, 2))
    assert found.proposals == (1, 2)
    assert found.j.tolist() == found.f.tolist() == [[1.0, 1.0], [0.0, 1.0]]


def test_frames_without_the_highest_proposals():
    """Frames bring as many rows as they have labels; the others are filled up with the empty mask."""
    short = ProposalScores(np.array([[0.0], [0.2]]), np.array([[0.0], [0.2]]))
    long = ProposalScores(np.array([[0.0], [0.2], [0.6]]), np.array([[0.0], [0.2], [0.8]]))
    found = assign_proposals([short, long])
    assert (found.proposals, found.j.tolist(), found.f.tolist()) == ((2,), [[0.0, 0.6]], [[0.0, 0.8]])
    assert assign_proposals([short, short, long]).proposals == (2,)
    assert assign_proposals([short, short, short, long]).proposals == (1,)


def test_more_than_twenty_proposals_are_refused():
    truth, drawn = np.ones((2, 4, 4), np.uint8)
    drawn[0, 0] = 20
    assert score_proposals(truth, drawn, [1]).j.shape == (21, 1)
    drawn[0, 0], truth[0, 0] = 21, 255
    with pytest.raises(InputError, match="label 21 .* 20 proposals at most"):
        score_proposals(truth, drawn, [1])


@pytest.mark.parametrize("radius", [1.0, 1.5, 2.0, 2.5, 3.0, 8.0, 9.0, 18.0, 70.0, 150.0])
def test_dilation_equals_that_of_opencv(radius):
    rng = np.random.default_rng(0)
    for height, width in ((1, 1), (1, 130), (40, 3), (23, 64), (31, 65), (50, 200)):
        maps = rng.random((2, height, width)) < 2 / (height * width)
        near = np.moveaxis(_dilate(_pack(tuple(maps)), radius), 0, -1).copy().view(np.uint8)
        found = np.unpackbits(near, axis=-1, count=width, bitorder="little")
        expected = [cv2.dilate(each.view(np.uint8), _disk(radius)) for each in maps]
        np.testing.assert_array_equal(found, expected)


@pytest.fixture(scope="module")
def golden(golden_dir):
    return json.loads((golden_dir / "vos" / "scores_unsup.json").read_text())["runs"]


@pytest.mark.data
@pytest.mark.parametrize("name", RUNS)
def test_official_run(name, golden, golden_dir):
    assert list(golden) == RUNS
    run = golden[name]

    def read(folder, frame):
        return np.array(Image.open(golden_dir / folder / f"{frame}.png"))

    labels = range(1, run["n_objects"] + 1)
    scores = [score_proposals(read(run["gt"], frame), read(run["pred"], frame), labels)
              for frame in run["frames_scored"]]  # fmt: skip
    found = assign_proposals(scores)
    official = run["assignment_official_order"]
    pairs = zip(official["gt_object_index0"], official["proposal_index0"], strict=True)
    assert found.proposals == tuple(proposal + 1 for _, proposal in sorted(pairs))
    rows = np.argsort(official["gt_object_index0"])
    for measure, values in (("J", found.j), ("F", found.f)):
        np.testing.assert_allclose(values, np.array(run[measure])[rows], rtol=0, atol=1e-9)
        expected = np.array([run["per_object"][measure][key] for key in ("mean", "recall", "decay")])[:, rows]
        np.testing.assert_allclose(np.array([statistics(row) for row in values]).T, expected, rtol=0, atol=1e-9)


def test_the_benchmark_compares_equal_results(tmp_path):
    saved = tmp_path / "times.json"
    options = [
        "--frames",
        "4",
        "--unsupervised-frames",
        "2",
        "--proposals",
        "6",
        "--size",
        "48",
        "86",
        "--repeats",
        "1",
    ]
    command = [sys.executable, str(BENCHMARK), *options, "--json", str(saved)]
    out = subprocess.run(command, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    results = json.loads(saved.read_text())["protocols"]
    assert [results[name]["frames"] for name in ("ordinary", "unsupervised")] == [4, 2]
    assert all(result["difference"] <= 1e-12 for result in results.values())
    assert "pairwise" in out.stdout and "jaxvos, 2" in out.stdout
