"""`jaxvos proposals`, and `jaxvos segment` with a first mask, as a person types them."""

import json

import numpy as np
import pytest
from PIL import Image

from jaxvos.data import encode_rle, open_video, read_mask, read_proposals, write_mask


def _bars(size=(48, 64)):
    mask = np.zeros(size, np.uint8)
    mask[10:30, 5:25], mask[10:30, 35:60] = 4, 9
    return mask


@pytest.fixture
def mask(tmp_path):
    write_mask(tmp_path / "first.png", _bars())
    return tmp_path / "first.png"


def test_from_pixels_to_masks_by_way_of_a_file(run, video, mask, tmp_path, tiny_dmm, tiny_proposer):
    source, file, sheet = video(count=3), tmp_path / "p.npz", tmp_path / "p.png"
    code, out, err = run("proposals", source, "-o", file, "--model", tiny_proposer, "--sheet", sheet)
    assert code == 0 and err == "" and "licence: CC0-1.0" in out and f"3 frames in {file}" in out
    found = read_proposals(file)
    assert len(found) == 3 and found.size == (48, 64) and found.detector == "tiny-proposer"
    with Image.open(sheet) as drawn:
        assert drawn.width == 1200
    code, out, err = run("segment", source, "-o", tmp_path / "out", "--model", tiny_dmm, "--first-mask", mask,
                         "--proposals", file)  # fmt: skip
    assert code == 0 and err == "" and out.startswith("model: tiny-dmm; licence: CC0-1.0")
    masks = [read_mask(path) for path in sorted((tmp_path / "out" / "masks").iterdir())]
    np.testing.assert_array_equal(masks[0], _bars())
    assert set(np.unique(masks)) <= {0, 4, 9} and len(masks) == 3
    report = json.loads((tmp_path / "out" / "results.json").read_text())
    assert report["proposals"] == str(file) and report["first_mask"] == str(mask) and report["flow"] is None
    assert report["online_seconds"] == 0


def test_another_detectors_json(run, video, tmp_path):
    """A list of results with a mask each; the boxes are made tight, and of two alike the better one is kept."""
    left = np.zeros((48, 64), bool)
    left[10:30, 5:25] = True
    entries = [{"image_id": index, "bbox": [0, 0, 64, 48], "score": score, "segmentation": encode_rle(left)}
               for index in range(3) for score in (0.5, 0.9)]  # fmt: skip
    (tmp_path / "found.json").write_text(json.dumps(entries))
    for name in ("p.npz", "p.json"):
        code, out, _ = run("proposals", video(count=3), "-o", tmp_path / name, "--detections", tmp_path / "found.json")
        assert code == 0 and "3 proposals of 3 frames" in out
        found = read_proposals(tmp_path / name)
        assert found.proposals.scores[0, 0] == pytest.approx(0.9)
        np.testing.assert_allclose(found.proposals.boxes[:, 0], [[5, 10, 25, 30]] * 3, atol=1.5)


@pytest.mark.parametrize("layout", ["flat", "davis"])
def test_sequences_with_masks_and_proposals(run, folder, tmp_path, tiny_dmm, tiny_proposer, layout):
    for name in ("bear", "cow"):
        folder(f"many/{name}", count=2)
        place = f"masks/{name}.png" if layout == "flat" else f"masks/{name}/00000.png"
        write_mask(tmp_path / place, _bars() if name == "bear" else np.minimum(_bars(), 1))
        file = tmp_path / "found" / (f"{name}.npz" if name == "bear" else f"{name}.json")
        run("proposals", tmp_path / "many" / name, "-o", file, "--model", tiny_proposer)
    code, out, err = run("segment", tmp_path / "many", "-o", tmp_path / "out", "--model", tiny_dmm, "--first-mask",
                         tmp_path / "masks", "--proposals", tmp_path / "found")  # fmt: skip
    assert code == 0 and err == "", err
    for name, ids in (("bear", {0, 4, 9}), ("cow", {0, 1})):
        assert set(np.unique(read_mask(tmp_path / "out" / name / "masks" / "00000.png"))) == ids
    (tmp_path / place).unlink()
    code, _, err = run("segment", tmp_path / "many", "-o", tmp_path / "again", "--model", tiny_dmm, "--first-mask",
                       tmp_path / "masks", "--proposals", tmp_path / "found")  # fmt: skip
    assert code == 2 and err.startswith("error: cow: mask ") and not (tmp_path / "again").exists()


def test_what_is_refused(run, video, folder, mask, snapshot, tmp_path, tiny_model, tiny_dmm, tiny_proposer):
    source = video(count=3)
    (tmp_path / "folder.npz").mkdir()
    run("proposals", video("short.mp4", count=2), "-o", tmp_path / "short.npz", "--model", tiny_proposer)
    run("proposals", video("large.mp4", count=3, height=64, width=96), "-o", tmp_path / "large.npz", "--model",
        tiny_proposer)  # fmt: skip
    write_mask(tmp_path / "empty.png", np.zeros((48, 64), np.uint8))
    (tmp_path / "found.json").write_text("[]")
    frames = folder(count=2)
    before = snapshot()
    new, segment = tmp_path / "new.npz", ("segment", source, "-o", tmp_path / "out", "--model", tiny_dmm)
    for words, *command in (
        ("ends in .npz or .json", "proposals", source, "-o", tmp_path / "p.txt"),
        ("is a folder: name a file", "proposals", source, "-o", tmp_path / "folder.npz"),
        ("two sources of proposals", "proposals", source, "-o", new, "--model", "x", "--detections", "y.json"),
        ("ends in .png or .jpg", "proposals", source, "-o", new, "--model", tiny_proposer, "--sheet", tmp_path / "s.x"),
        ("mix with frames", "proposals", frames, "-o", new, "--model", tiny_proposer, "--sheet", frames / "00000.jpg"),
        ("would replace the detections", "proposals", source, "-o", tmp_path / "found.json", "--detections",
         tmp_path / "found.json"),
        ("makes no proposals", "proposals", source, "-o", new, "--model", tiny_model),
        ("0 proposals of a frame", "proposals", source, "-o", new, "--num-proposals", "0"),
        ("there is no proposal file", "proposals", source, "-o", new, "--detections", tmp_path / "none.json"),
        ("give their mask", *segment),
        ("holds no object", *segment, "--first-mask", tmp_path / "empty.png"),
        ("00002", *segment, "--first-mask", mask, "--proposals", tmp_path / "short.npz"),
        ("96x64", *segment, "--first-mask", mask, "--proposals", tmp_path / "large.npz"),
        ("0 steps of online", *segment, "--first-mask", mask, "--online", "--online-steps", "0"),
        ("-3 steps of online", *segment, "--first-mask", mask, "--online", "--online-steps=-3"),
        ("makes no proposals", *segment, "--first-mask", mask, "--proposals", tiny_model),
        ("takes no first mask", *segment[:-1], tiny_model, "--first-mask", mask),
    ):
        code, _, err = run(*command)
        assert code == 2 and words in err and err.count("\n") == 1, (command, err)
    assert snapshot() == before
    assert sum(1 for _ in open_video(source)) == 3
