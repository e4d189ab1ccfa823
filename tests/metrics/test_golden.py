"""The official DAVIS code's own numbers (davis2017-evaluation, commit ac7c43f), on files beside the checkout."""

import json

import numpy as np
import pytest
from PIL import Image

from jaxvos.metrics import boundary_map, boundary_measure, region_similarity, statistics
from jaxvos.metrics._boundary import _disk, _radius

pytestmark = pytest.mark.data
RUNS = ["dog-agility", "drift-turn", "schoolgirls", "schoolgirls+void", "schoolgirls_fewer_ids", "soccerball"]


@pytest.fixture(scope="module")
def edge_cases(golden_dir):
    with np.load(golden_dir / "vos" / "edge_cases.npz") as arrays:
        yield json.loads((golden_dir / "vos" / "edge_cases.json").read_text()), dict(arrays)


@pytest.fixture(scope="module")
def semi(golden_dir):
    return json.loads((golden_dir / "vos" / "scores_semi.json").read_text())


def _numbers(values):
    return np.array([np.nan if value is None else value for value in values], np.float64)


def test_edge_cases(edge_cases):
    table, arrays = edge_cases
    assert len(table["cases"]) == 83
    for case in table["cases"]:
        height, width = case["shape"]

        def unpack(kind, case=case, height=height, width=width):
            return np.unpackbits(arrays[f"{kind}_{case['i']}"])[:height * width].reshape(height, width).astype(bool)

        truth, drawn = unpack("gt"), unpack("pred")
        void = unpack("void") if case["has_void"] else None
        keep = np.ones_like(truth) if void is None else ~void
        np.testing.assert_array_equal(boundary_map(truth & keep), unpack("gt_boundary"), err_msg=case["name"])
        np.testing.assert_array_equal(boundary_map(drawn & keep), unpack("pred_boundary"), err_msg=case["name"])
        assert region_similarity(truth, drawn, void=void) == case["J"], case["name"]
        assert boundary_measure(truth, drawn, void=void, bound_th=case["bound_th"]) == case["F"], case["name"]


def test_radius_of_each_image_size(edge_cases):
    for row in edge_cases[0]["bound_pix_table"]:
        radius = _radius(tuple(row["shape"]), 0.008)
        assert radius == row["bound_pix"], row
        assert _disk(radius).sum() == row["disk_pixels"], row


def test_statistics(edge_cases):
    for row in edge_cases[0]["statistics"]:
        expected = _numbers([row["M"], row["O"], row["D"]])
        np.testing.assert_array_equal(np.array(statistics(_numbers(row["values"]))), expected, err_msg=str(row["len"]))


@pytest.mark.parametrize("name", RUNS)
def test_semi_supervised_run(name, golden_dir, semi):
    run = semi["runs"][name]

    def read(folder, frame):
        return np.array(Image.open(golden_dir / folder / f"{frame}.png"))

    labels = range(1, run["n_objects"] + 1)
    region, boundary = [[] for _ in labels], [[] for _ in labels]
    for frame in run["frames_scored"]:
        truth, drawn = read(run["gt"], frame), read(run["pred"], frame)
        for index, label in enumerate(labels):
            region[index].append(region_similarity(truth == label, drawn == label))
            boundary[index].append(boundary_measure(truth == label, drawn == label))
    np.testing.assert_allclose(region, run["J"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(boundary, run["F"], rtol=0, atol=1e-9)
    for values, expected in ((region, run["per_object"]["J"]), (boundary, run["per_object"]["F"])):
        found = np.array([statistics(row) for row in values])
        for column, key in enumerate(("mean", "recall", "decay")):
            np.testing.assert_allclose(found[:, column], _numbers(expected[key]), rtol=0, atol=1e-9)
