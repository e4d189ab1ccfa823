"""`jaxvos segment` on good input: what it writes, from every kind of input."""

import io
import json
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

import jaxvos.models
from jaxvos.data import davis_palette, open_video, read_mask, write_flow, write_mask
from jaxvos.inference import jitted_predict, stream
from jaxvos.models import DEFAULT, load_model


def _names(folder):
    return sorted(path.name for path in folder.iterdir())


def _masks(folder):
    return np.stack([read_mask(path) for path in sorted((folder / "masks").iterdir())])


def test_a_video_file(run, video, tmp_path, tiny_model):
    code, out, err = run("segment", video(), "-o", tmp_path / "new" / "out", "--model", tiny_model)
    folder = tmp_path / "new" / "out"
    assert code == 0 and err == "" and _names(tmp_path / "new") == ["out"]
    assert _names(folder) == ["contact_sheet.png", "masks", "overlay.mp4", "results.json"]
    assert _names(folder / "masks") == [f"{index:05d}.png" for index in range(6)]
    for path in (folder / "masks").iterdir():
        with Image.open(path) as image:
            assert image.mode == "P" and image.size == (64, 48) and image.format == "PNG"
            np.testing.assert_array_equal(np.reshape(image.getpalette(), (-1, 3)), davis_palette())
            assert set(np.unique(np.asarray(image))) <= {0, 1}
    overlay = open_video(folder / "overlay.mp4")
    assert (overlay.size, overlay.fps, sum(1 for _ in overlay)) == ((48, 64), 12.0, 6)
    with Image.open(folder / "contact_sheet.png") as sheet:
        assert sheet.width == 1200
    first, second = out.splitlines()
    assert first == "model: tiny; licence: CC0-1.0"
    assert second.startswith(f"6 frames in {folder}: ") and "model alone (compiled in" in second

    report = json.loads((folder / "results.json").read_text())
    assert (report["frames"], report["size"], report["model"]["name"]) == (6, [48, 64], "tiny")
    assert report["model"]["licence"] == "CC0-1.0" and report["versions"]["jaxvos"] == "0.1.0" and report["device"]
    assert report["input"].endswith("clip.mp4") and (report["flow"], report["threshold"]) == ("dis", 0.5)
    speed = report["frames_per_second"]
    assert 0 < speed["steady"] <= speed["model"] and 0 < speed["everything"] and report["compile_seconds"] >= 0
    assert report["foreground_share"]["mean"] == pytest.approx(np.mean(_masks(folder) > 0))


@pytest.mark.parametrize("kind", ["avi", "folder", "glob"])
def test_other_inputs(run, video, folder, tmp_path, tiny_model, kind):
    if kind == "avi":
        source, names = video("clip.avi", count=3), ["00000.png", "00001.png", "00002.png"]
    else:
        source, names = folder(count=12), [f"{index:05d}.png" for index in range(12)]
    if kind == "glob":
        source, names = f"{source}/0000[0-3].jpg", names[:4]
    assert run("segment", source, "-o", tmp_path / "out", "--model", tiny_model).code == 0
    assert _names(tmp_path / "out" / "masks") == names


@pytest.mark.parametrize("root", ["davis", "davis/JPEGImages/480p", "plain"])
def test_a_folder_of_sequences(run, folder, tmp_path, tiny_model, root):
    place = "plain" if root == "plain" else "davis/JPEGImages/480p"
    for name in ("bear", "bmx-trees"):
        folder(f"{place}/{name}", count=3)
        for index in range(2):
            vectors = np.full((48, 64, 2), 3.0 if name == "bear" else -2.0, np.float32)
            write_flow(tmp_path / "flow" / name / f"{index:05d}.flo", vectors)
    code, out, err = run("segment", tmp_path / root, "-o", tmp_path / "out", "--model", tiny_model,
                         "--flow", tmp_path / "flow")  # fmt: skip
    assert code == 0 and err == "" and len(out.splitlines()) == 3
    assert _names(tmp_path / "out") == ["bear", "bmx-trees"]
    for name in ("bear", "bmx-trees"):
        assert _names(tmp_path / "out" / name / "masks") == ["00000.png", "00001.png", "00002.png"]
        report = json.loads((tmp_path / "out" / name / "results.json").read_text())
        assert report["flow"] == str(tmp_path / "flow" / name) and report["input"].endswith(f"{place}/{name}")


def test_the_default_model_is_said(run, folder, tmp_path, tiny_model, monkeypatch):
    (tmp_path / "weights").mkdir()
    shutil.copy(tiny_model, tmp_path / "weights" / f"{DEFAULT}.safetensors")
    monkeypatch.setattr(jaxvos.models, "_FOLDER", tmp_path / "weights")
    code, out, _ = run("segment", folder(), "-o", tmp_path / "out")
    assert code == 0 and out.startswith(f"model: {DEFAULT} (embedded default); licence: CC0-1.0\n")


def test_options_are_passed_on(run, folder, tmp_path, tiny_model):
    source, masks = folder(), {}
    for name, options in {"plain": [], "high": ["--threshold", "0.99"], "skip": ["--last-frame", "skip"]}.items():
        run("segment", source, "-o", tmp_path / name, "--model", tiny_model, *options)
        masks[name] = _masks(tmp_path / name)
    assert masks["high"].sum() < masks["plain"].sum()
    np.testing.assert_array_equal(masks["skip"], masks["plain"][:-1])


def test_two_frames_of_which_one_is_skipped(run, folder, tmp_path, tiny_model):
    code, out, _ = run("segment", folder(count=2), "-o", tmp_path / "out", "--model", tiny_model,
                       "--last-frame", "skip")  # fmt: skip
    report = json.loads((tmp_path / "out" / "results.json").read_text())
    assert code == 0 and report["frames"] == 1 and report["frames_per_second"]["steady"] is None
    assert out.rstrip().endswith("with compiling and writing")


def test_overwrite_replaces_earlier_results_and_nothing_else(run, video, folder, tmp_path, tiny_model):
    output = tmp_path / "out"
    run("segment", video(), "-o", output, "--model", tiny_model)
    for note in (output / "notes.txt", output / "masks" / "notes.txt", output / "mine" / "a.png"):
        note.parent.mkdir(exist_ok=True)
        note.write_text("mine")
    code, _, err = run("segment", folder(count=3), "-o", output, "--model", tiny_model, "--overwrite")
    assert code == 0 and err == ""
    assert _names(output) == ["contact_sheet.png", "masks", "mine", "notes.txt", "overlay.mp4", "results.json"]
    assert _names(output / "masks") == ["00000.png", "00001.png", "00002.png", "notes.txt"]
    assert json.loads((output / "results.json").read_text())["frames"] == 3


def test_an_empty_folder_may_be_the_output_even_the_present_one(run, folder, tmp_path, tiny_model, monkeypatch):
    source = folder()
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    assert run("segment", "../clip", "-o", ".", "--model", tiny_model).code == 0
    assert _names(tmp_path / "out") == ["contact_sheet.png", "masks", "overlay.mp4", "results.json"]
    assert len(_names(source)) == 4


def test_sequences_of_one_size_share_one_compilation(run, folder, tmp_path, tiny_model):
    for name in "abc":
        folder(f"many/{name}", count=2)
    run("segment", tmp_path / "many", "-o", tmp_path / "out", "--model", tiny_model)
    assert jitted_predict(load_model(tiny_model).system)._cache_size() == 1


def test_a_terminal_sees_a_bar_and_a_pipe_does_not(run, folder, tmp_path, tiny_model, monkeypatch):
    source = folder()
    assert run("segment", source, "-o", tmp_path / "piped", "--model", tiny_model).err == ""
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    run("segment", source, "-o", tmp_path / "shown", "--model", tiny_model)
    assert "clip:" in terminal.getvalue() and "/4 [" in terminal.getvalue()


@pytest.mark.slow
def test_an_object_that_is_learned_online(run, video, tmp_path, tiny_segflow):
    source, mask, reports = video(count=3), tmp_path / "first.png", {}
    write_mask(mask, np.where(np.arange(64) < 24, 5, 0).astype(np.uint8)[None].repeat(48, 0))
    for name, options in {"on": ("--online", "--online-steps", "2", "--online-heads"), "off": ("--no-online",)}.items():
        code, out, err = run("segment", source, "-o", tmp_path / name, "--model", tiny_segflow, "--first-mask", mask,
                             *options)  # fmt: skip
        assert code == 0 and err == "" and ("s of online learning included" in out) == (name == "on")
        np.testing.assert_array_equal(_masks(tmp_path / name)[0], read_mask(mask))
        assert set(np.unique(_masks(tmp_path / name))) == {0, 5}
        reports[name] = json.loads((tmp_path / name / "results.json").read_text())
    expected = {"num_steps": 2, "lr": None, "heads_only": True, "patience": None, "seed": 0}
    assert reports["on"]["online"] == expected and reports["on"]["online_seconds"] > 0
    assert reports["off"]["online"] is None and reports["off"]["online_seconds"] == 0
    assert all(report["model"]["name"] == "tiny-segflow" and report["flow"] is None for report in reports.values())


def test_flow_of_a_network(run, folder, tmp_path, tiny_model, tiny_pwc):
    for name in ("bear", "cow"):
        folder(f"many/{name}", count=3)
    source = tmp_path / "many" / "bear"
    found = list(stream(source, model=tiny_model, flow=tiny_pwc))
    threshold = float(np.median([frame.foreground for frame in found]))
    for output, place, flow in (("one", source, tiny_pwc), ("all", source.parent, tiny_pwc), ("dis", source, "dis")):
        code, _, err = run("segment", place, "-o", tmp_path / output, "--model", tiny_model, "--flow", flow,
                           "--threshold", threshold)  # fmt: skip
        assert code == 0 and err == ""
    expected = np.stack([frame.foreground for frame in found]) >= threshold
    for place in ("one", "all/bear", "all/cow"):
        assert json.loads((tmp_path / place / "results.json").read_text())["flow"] == str(tiny_pwc)
        assert np.mean(_masks(tmp_path / place) != expected) < 1e-3
    assert np.mean(_masks(tmp_path / "dis") != expected) > 1e-3
