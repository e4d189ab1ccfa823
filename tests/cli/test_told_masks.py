"""`jaxvos segment` with masks on any frame and objects that are removed, as a person types it."""

import dataclasses
import json

import numpy as np
import pytest

from jaxvos import data
from jaxvos.data import read_mask, write_mask

SIZE = (48, 64)


def _mask(*ids):
    mask = np.zeros(SIZE, np.uint8)
    for place, value in enumerate(ids):
        mask[10:30, 4 + 20 * place : 20 + 20 * place] = value
    return mask


@pytest.fixture
def masks(tmp_path):
    for name, ids in {"first": (4,), "new": (9, 200), "empty": ()}.items():
        write_mask(tmp_path / f"{name}.png", _mask(*ids))
    write_mask(tmp_path / "small.png", np.ones((10, 12), np.uint8))
    return {name: tmp_path / f"{name}.png" for name in ("first", "new", "empty", "small")}


def test_objects_come_and_go(run, video, masks, tmp_path, tiny_stcn):
    code, out, err = run("segment", video(count=5), "-o", tmp_path / "out", "--model", tiny_stcn,
                         "--mask", f"1:{masks['first']}", "--mask", f"2:{masks['new']}",
                         "--remove", "3:9,200", "--remove", "3:4")  # fmt: skip
    assert code == 0 and err == "", err
    assert "objects told on frames 1, 2, objects removed on frame 3" in out.splitlines()[1]
    found = [read_mask(tmp_path / "out" / "masks" / f"{index:05d}.png") for index in range(5)]
    np.testing.assert_array_equal(found[1], _mask(4))
    np.testing.assert_array_equal(np.where(found[2] == 4, 0, found[2]), _mask(9, 200))
    assert not any(found[index].any() for index in (0, 3, 4))
    report = json.loads((tmp_path / "out" / "results.json").read_text())
    assert report["masks"] == {"1": str(masks["first"]), "2": str(masks["new"])}
    assert report["removals"] == {"3": [9, 200, 4]} and report["first_mask"] is None
    assert report["frames"] == 5 and report["frames_per_second"]["steady"] is None  # both that were run may compile


def test_a_first_mask_and_others(run, folder, masks, tmp_path, tiny_stcn):
    """Of one sequence in a folder of such."""
    folder("many/bear", count=3)
    outputs = {"a": ("--first-mask", masks["first"]), "b": ("--mask", f"00:{masks['first']}")}
    found = {}
    for name, first in outputs.items():
        source = tmp_path / "many" / "bear"
        code, out, err = run("segment", source, "-o", tmp_path / name, "--model", tiny_stcn, *first, "--mask",
                             f"1:{masks['new']}")  # fmt: skip
        assert code == 0 and err == "", err
        found[name] = np.stack([read_mask(path) for path in sorted((tmp_path / name / "masks").iterdir())])
    np.testing.assert_array_equal(found["a"], found["b"])
    np.testing.assert_array_equal(found["a"][0], _mask(4))
    assert set(np.unique(found["a"][1])) >= {0, 9, 200}


def test_what_is_refused(run, video, folder, masks, snapshot, tmp_path, tiny_dmm, tiny_model, tiny_stcn):
    source, one = video(count=3), f"1:{masks['first']}"
    for name in ("bear", "cow"):
        folder(f"many/{name}", count=2)
    before = snapshot()
    output = ("-o", tmp_path / "out")
    segment = ("segment", source, *output, "--model", tiny_stcn)
    for words, *command in (
        ("'37:': give the number of a frame and a file, such as 37:new.png", *segment, "--mask", "37:"),
        ("':first.png': give the number", *segment, "--mask", ":first.png"),
        ("'first.png': give the number", *segment, "--mask", "first.png"),
        ("'-1:first.png': give the number", *segment, "--mask=-1:first.png"),
        ("two masks for frame 1", *segment, "--mask", one, "--mask", f"01:{masks['new']}"),
        ("two masks for frame 0", *segment, "--first-mask", masks["first"], "--mask", f"0:{masks['first']}"),
        ("none.png does not exist", *segment, "--mask", f"1:{tmp_path / 'none.png'}"),
        ("small.png is 12x10 but its frame is 64x48", *segment, "--mask", one, "--mask", f"2:{masks['small']}"),
        ("empty.png holds no object", *segment, "--mask", f"1:{masks['empty']}"),
        ("there is no frame 3 in clip, which has 3", *segment, "--mask", f"3:{masks['first']}"),
        ("there is no frame 50 in clip, which has 3", *segment, "--mask", one, "--remove", "50:4"),
        ("'50:': give the number of a frame and ids, such as 50:3 or 50:3,4", *segment, "--remove", "50:"),
        ("'3': give the number", *segment, "--remove", "3"), ("'2:3,': give", *segment, "--remove", "2:3,"),
        ("frame 2: object 9 is not followed there", *segment, "--mask", one, "--remove", "2:9"),
        ("frame 0: object 4 is not followed there", *segment, "--mask", one, "--remove", "0:4"),
        ("give their mask (--first-mask PNG, or --mask FRAME:PNG)", *segment),
        ("give their mask", *segment, "--remove", "1:4"),
        ("tiny-dmm is told nothing after the first frame", *segment[:-1], tiny_dmm, "--mask", one),
        ("tiny is told nothing after the first frame", *segment[:-1], tiny_model, "--mask", one),
        ("tiny finds objects by itself", *segment[:-1], tiny_model, "--mask", f"0:{masks['first']}"),
        ("dmm-net-lite is told nothing", "segment", source, *output, "--mask", one, "--online"),
        ("are of a single video", "segment", tmp_path / "many", *output, "--model", tiny_stcn, "--mask", one),
        ("holds 2: segment that one by itself", "segment", tmp_path / "many", *output, "--remove", "1:1"),
    ):
        code, _, err = run(*command)
        assert code == 2 and words in err and err.count("\n") == 1, (command, err)
    assert snapshot() == before


def test_a_video_that_ends_too_early_leaves_nothing(run, video, masks, tmp_path, tiny_stcn, monkeypatch):
    """Of a container that does not say how many frames it has."""
    source, before = video(count=3), data.open_video
    monkeypatch.setattr(data, "open_video", lambda *a, **k: dataclasses.replace(before(*a, **k), length=None))
    code, _, err = run("segment", source, "-o", tmp_path / "out", "--model", tiny_stcn, "--mask",
                       f"0:{masks['first']}", "--mask", f"7:{masks['new']}")  # fmt: skip
    assert code == 2 and "there is no frame 7 in clip, which has 3" in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()
