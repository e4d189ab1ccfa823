"""`jaxvos flow`: what it writes, that its colours compare within a video, and what it refuses."""

import io
import json
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxvos.data import dis_flow, open_video, read_flow, write_flow
from jaxvos.ops import flow_to_color


@pytest.fixture
def refused(run, snapshot, tmp_path):
    """Estimates flow and expects to be refused, with the disk as it was."""

    def call(source, *options, output=None, model="dis"):
        before = snapshot()
        code, _, err = run("flow", source, "-o", output or tmp_path / "out", "--model", model, *options)
        assert code == 2 and err.startswith("error: ") and err.count("\n") == 1 and err.endswith("\n"), err
        assert snapshot() == before
        return err

    return call


@pytest.fixture
def vectors(tmp_path):
    """Writes a folder of flow files, each uniform, for frames of 48x64."""

    def write(*speeds, name="vectors", size=(48, 64)):
        for index, speed in enumerate(speeds):
            write_flow(tmp_path / name / f"{index:05d}.flo", np.full((*size, 2), (speed, 0), np.float32))
        return tmp_path / name

    return write


def _names(folder):
    return sorted(path.name for path in folder.iterdir())


def _flows(folder):
    return np.stack([read_flow(path)[0] for path in sorted((folder / "flow").iterdir())])


def _colours(folder):
    return np.stack([np.asarray(Image.open(path)) for path in sorted((folder / "colour").iterdir())]).astype(int)


def test_a_video_file(run, video, tmp_path):
    source, folder = video(), tmp_path / "new" / "out"
    code, out, err = run("flow", source, "-o", folder)
    assert code == 0 and err == "" and _names(tmp_path / "new") == ["out"]
    assert _names(folder) == ["colour", "contact_sheet.png", "flow", "flow.mp4", "report.json"]
    assert _names(folder / "flow") == [f"{index:05d}.flo" for index in range(5)]
    assert _names(folder / "colour") == [f"{index:05d}.png" for index in range(5)]
    frames, dis = list(open_video(source)), dis_flow()
    expected = np.stack([dis(a, b, name="") for a, b in zip(frames[:-1], frames[1:], strict=True)])
    np.testing.assert_array_equal(_flows(folder), expected)
    painted = open_video(folder / "flow.mp4")
    assert (painted.size, painted.fps, sum(1 for _ in painted)) == ((48, 64), 12.0, 5)
    with Image.open(folder / "contact_sheet.png") as sheet:
        assert sheet.width == 1200

    report = json.loads((folder / "report.json").read_text())
    assert (report["frames"], report["size"], report["format"]) == (5, [48, 64], "flo")
    assert report["model"] == {"name": "dis"}
    assert report["input"] == str(source) and report["versions"]["jaxvos"] and report["device"]
    speeds = np.linalg.norm(expected, axis=-1)
    assert report["speed"]["mean"] == pytest.approx(speeds.mean(), rel=1e-5)
    assert report["speed"]["largest"] == pytest.approx(speeds.max())
    p99 = np.quantile(speeds, 0.99)
    assert p99 * 0.99 < report["speed"]["p99"] <= p99 * 1.02 and report["radius"] == max(1.0, report["speed"]["p99"])
    seconds = report["seconds"]
    assert 0 < seconds["per_frame"] and seconds["first"] + 4 * seconds["per_frame"] < seconds["everything"]
    first, second = out.splitlines()
    assert first == "flow: dis" and second.startswith(f"flow of 5 frames in {folder}, ")


@pytest.mark.parametrize("kind", ["png", "pfm"])
def test_formats(run, folder, tmp_path, kind):
    source = folder()
    run("flow", source, "-o", tmp_path / "flo")
    assert run("flow", source, "-o", tmp_path / kind, "--format", kind).code == 0
    assert _names(tmp_path / kind / "flow") == [f"{index:05d}.{kind}" for index in range(3)]
    tolerance = 1.01 / 128 if kind == "png" else 0
    np.testing.assert_allclose(_flows(tmp_path / kind), _flows(tmp_path / "flo"), rtol=0, atol=tolerance)


def test_one_speed_has_one_colour_in_the_whole_video(run, folder, vectors, tmp_path):
    source, model = folder(), vectors(2.0, -6.0, 2.0)
    run("flow", source, "-o", tmp_path / "out", "--model", model)
    colours, radius = _colours(tmp_path / "out"), json.loads((tmp_path / "out" / "report.json").read_text())["radius"]
    assert radius == 6.0
    for index, speed in enumerate((2.0, -6.0, 2.0)):
        flow = jnp.full((48, 64, 2), jnp.array([speed, 0.0]))
        np.testing.assert_allclose(colours[index], 255 * flow_to_color(flow, max_radius=radius), atol=1)
    run("flow", source, "-o", tmp_path / "pale", "--model", model, "--radius", "60")
    assert _colours(tmp_path / "pale").mean() > colours.mean() + 20
    np.testing.assert_array_equal(_flows(tmp_path / "pale"), _flows(tmp_path / "out"))
    run("flow", source, "-o", tmp_path / "still", "--model", vectors(0.01, 0.01, 0.01, name="noise"))
    assert _colours(tmp_path / "still").min() > 250  # noise is not blown up


def test_the_last_frame(run, folder, vectors, tmp_path):
    source, model, found = folder(count=3), vectors(1.0, 2.0, 3.0), {}
    for choice in ("skip", "reuse", "backward"):
        run("flow", source, "-o", tmp_path / choice, "--model", model, "--last-frame", choice)
        found[choice] = list(_flows(tmp_path / choice)[:, 0, 0, 0])
        assert len(_colours(tmp_path / choice)) == len(found[choice])
    assert found == {"skip": [1, 2], "reuse": [1, 2, 2], "backward": [1, 2, -3]}


def test_a_folder_of_sequences_with_flow_of_each(run, folder, vectors, tmp_path):
    for name, speed in (("a", 1.0), ("b", 2.0)):
        folder(f"many/{name}", count=2)
        vectors(speed, name=f"vectors/{name}")
    code, out, _ = run("flow", tmp_path / "many", "-o", tmp_path / "out", "--model", tmp_path / "vectors")
    assert code == 0 and len(out.splitlines()) == 3 and _names(tmp_path / "out") == ["a", "b"]
    assert [_flows(tmp_path / "out" / name).max() for name in "ab"] == [1, 2]
    report = json.loads((tmp_path / "out" / "b" / "report.json").read_text())
    assert report["model"] == {"name": str(tmp_path / "vectors" / "b")} and report["seconds"]["per_frame"] is None


def test_a_network(run, folder, tmp_path, tiny_pwc):
    source = folder(count=3)
    code, out, err = run("flow", source, "-o", tmp_path / "out", "--model", tiny_pwc)
    assert code == 0 and err == "" and out.startswith("model: tiny-pwc; licence: CC0-1.0\n")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["model"]["name"] == "tiny-pwc" and report["model"]["licence"] == "CC0-1.0"
    assert _flows(tmp_path / "out").shape == (2, 48, 64, 2)


def test_overwrite_leaves_no_flow_of_another_format(run, folder, refused, tmp_path):
    source, output = folder(), tmp_path / "out"
    run("flow", source, "-o", output)
    for note in (output / "notes.txt", output / "flow" / "notes.txt"):
        note.write_text("mine")
    assert "is not empty: choose another folder or add --overwrite" in refused(source, output=output)
    code, _, err = run("flow", f"{source}/0000[0-2].jpg", "-o", output, "--overwrite", "--format", "pfm")
    assert code == 0 and err == ""
    assert _names(output) == ["colour", "contact_sheet.png", "flow", "flow.mp4", "notes.txt", "report.json"]
    assert _names(output / "flow") == ["00000.pfm", "00001.pfm", "notes.txt"]
    assert _names(output / "colour") == ["00000.png", "00001.png"]


def test_results_of_something_else_are_not_replaced(refused, folder, tmp_path):
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "contact_sheet.png").write_text("of a segmented video")
    error = refused(folder(), "--overwrite", output=tmp_path / "masks")
    assert "contact_sheet.png would be replaced, but is not of an earlier run (no report.json" in error
    assert "results would mix with frames" in refused(tmp_path / "clip", output=tmp_path / "clip" / "out")


def test_colours_that_would_replace_themselves(run, refused, folder, tmp_path):
    run("flow", folder(), "-o", tmp_path / "out")
    for source in ("colour", "flow.mp4"):
        assert "replaced by its own results" in refused(tmp_path / "out" / source, "--overwrite")


def test_bad_videos(refused, folder, tmp_path):
    assert "there is no video or folder" in refused(tmp_path / "none.mp4")
    assert "one frame has no motion" in refused(folder("single", count=1))
    source = folder()
    Image.new("RGB", (32, 32)).save(source / "00002.jpg")
    assert "00002.jpg is 32x32 but 00000.jpg is 64x48" in refused(source)
    (source / "00002.jpg").write_bytes((source / "00001.jpg").read_bytes()[:-100])  # found out when it is reached
    assert "00002.jpg cannot be read" in refused(source)


def test_bad_models(refused, folder, tmp_path, tiny_model):
    source = folder()
    assert "there is no model resnet: give" in (error := refused(source, model="resnet"))
    assert "or give dis, or a folder of flow files" in error
    assert "tiny" in refused(source, model=tiny_model)  # a system that segments
    assert "no .flo, .pfm or .png flow files" in refused(source, model=source.parent)


def test_bad_flow_files(refused, folder, vectors):
    source, model = folder(), vectors(1.0, 1.0)
    assert "no flow for frame 00002" in refused(source, model=model)
    bad = model / "00002.flo"
    for content, words in ((b"FLOW" + bytes(100), "does not begin with PIEH"), (b"PIEH" + bytes(8), "damaged or cut")):
        bad.write_bytes(content)
        assert words in refused(source, model=model)
    write_flow(bad, np.zeros((24, 32, 2), np.float32))
    assert "00002.flo is 32x24 but its frame is 64x48" in refused(source, model=model)
    bad.write_bytes((model / "00000.flo").read_bytes()[:12] + np.full((48, 64, 2), np.nan, "<f4").tobytes())
    assert "is known" in refused(source, model=model)


def test_flow_that_does_not_fit_the_format(refused, folder, vectors, tmp_path):
    error = refused(folder(), "--format", "png", model=vectors(1.0, 600.0, 1.0))
    place = tmp_path / "out" / "flow" / "00001.png"  # as the user knows it, not where it was being made
    assert f"flow up to 600 pixels does not fit into the PNG {place} " in error


@pytest.mark.parametrize("radius", ["0", "-1", "nan", "inf"])
def test_bad_radius(refused, folder, radius):
    assert f"radius {float(radius)}: give a positive number" in refused(folder(), f"--radius={radius}")


def test_a_bad_sequence_among_several_is_named(run, folder, tmp_path):
    for name in ("a", "b"):
        folder(f"many/{name}", count=3)
    last = tmp_path / "many" / "b" / "00002.jpg"
    last.write_bytes(last.read_bytes()[:-100])
    code, _, err = run("flow", tmp_path / "many", "-o", tmp_path / "out")
    assert code == 2 and err.startswith("error: b: image ") and err.endswith("(1 of 2 sequences are finished)\n")
    assert _names(tmp_path / "out") == ["a"]


def test_a_terminal_sees_a_bar_and_a_pipe_does_not(run, folder, tmp_path, monkeypatch):
    source = folder()
    assert run("flow", source, "-o", tmp_path / "piped").err == ""
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    run("flow", source, "-o", tmp_path / "shown")
    assert "clip: flow:" in terminal.getvalue() and "clip: colours:" in terminal.getvalue()
    assert "/3 [" in terminal.getvalue()
