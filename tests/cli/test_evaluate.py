"""`jaxvos evaluate` as a user types it."""

import json

import numpy as np
import pytest
from PIL import Image

from jaxvos.data import write_mask


def _square(shift, label=1):
    mask = np.zeros((24, 40), np.uint8)
    mask[4:12, 5 + shift : 15 + shift] = label
    return mask


@pytest.fixture
def folders(tmp_path):
    """Two sequences, drawn two pixels off; the predictions as `jaxvos segment` leaves them."""
    for name in ("one", "two"):
        for index in range(5):
            write_mask(tmp_path / "davis" / "Annotations" / "480p" / name / f"{index:05d}.png", _square(index))
            write_mask(tmp_path / "drawn" / name / "masks" / f"{index:05d}.png", _square(index + 2))
    return tmp_path / "drawn", tmp_path / "davis"


def test_table_and_report(run, folders, tmp_path):
    code, out, err = run("evaluate", *folders, "-o", tmp_path / "new" / "report.json")
    assert code == 0 and err == ""
    assert "one" in out and "two" in out and "66.7" in out.replace("0.667", "66.7")
    report = json.loads((tmp_path / "new" / "report.json").read_text())
    assert report["protocol"] == "davis16" and len(report["sequences"]) == 2
    code, every, _ = run("evaluate", *folders, "--all-frames", "--protocol", "davis17")
    assert code == 0 and every != out
    single = run("evaluate", folders[0] / "one", folders[1] / "Annotations" / "480p" / "one")
    assert single.code == 0 and "one" in single.out


def test_bad_input(run, folders, snapshot, tmp_path):
    drawn, davis = folders
    masks = drawn / "two" / "masks"
    report = ["-o", tmp_path / "report.json"]

    def refused(*args):
        before = snapshot()
        code, out, err = run("evaluate", *args)
        assert code == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 1, err
        assert snapshot() == before
        return err

    assert "no folder" in refused(tmp_path / "none", davis, *report)
    assert "no folder" in refused(drawn, tmp_path / "none", *report)
    assert "lie in the folder of the ground truth" in refused(davis, davis, *report)
    assert "is a folder: name a file" in refused(drawn, davis, "-o", tmp_path)

    (masks / "00002.png").rename(tmp_path / "00002.png")
    assert "1 of 3 scored frames of" in refused(drawn, davis, *report)
    write_mask(masks / "00002.png", np.zeros((12, 20), np.uint8))
    assert "00002.png is 20x12 and the ground truth 40x24" in refused(drawn, davis, *report)
    Image.fromarray(_square(2) * 255).resize((80, 48), Image.Resampling.BICUBIC).resize((40, 24)).convert("RGB").save(
        masks / "00002.png")  # fmt: skip
    assert "save as indexed PNG" in refused(drawn, davis, *report)
    write_mask(masks / "00002.png", _square(2, label=7))
    assert "has label 7" in refused(drawn, davis, "--protocol", "davis17", *report)
    (masks / "00002.png").write_bytes(b"\x89PNG")
    assert "cannot be read" in refused(drawn, davis, *report)


def test_a_report_that_cannot_be_written(run, folders, tmp_path):
    (tmp_path / "file").write_text("")
    code, out, err = run("evaluate", *folders, "-o", tmp_path / "file" / "report.json")
    assert code == 2 and err.startswith("error: cannot write") and err.count("\n") == 1 and "one" in out
