"""`jaxvos demo`: a clip it never saw, segmented by the embedded model and scored."""

import json

import pytest


def test_bad_input(run, tmp_path, snapshot):
    (tmp_path / "ground_truth").mkdir()
    before = snapshot()
    for options, message in ([], "is not empty"), (["--overwrite"], "ground_truth would be replaced"):
        code, out, err = run("demo", "--out", tmp_path, *options)
        assert code == 2 and out == "" and message in err and err.count("\n") == 1
    assert snapshot() == before


@pytest.mark.slow
def test_the_embedded_model_segments_a_synthetic_clip(run, tmp_path):
    code, out, err = run("demo", "--out", tmp_path / "demo")
    assert code == 0 and err == "" and "(embedded default)" in out
    assert sorted(path.name for path in (tmp_path / "demo").iterdir()) == [
        "clip.mp4", "contact_sheet.png", "ground_truth", "masks", "overlay.mp4", "results.json", "scores.json"
    ]  # fmt: skip
    assert json.loads((tmp_path / "demo" / "scores.json").read_text())["global"]["J"]["mean"] >= 0.80
    assert run("demo", "--out", tmp_path / "demo", "--overwrite", "--seed", "6").code == 0
