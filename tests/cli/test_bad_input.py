"""`jaxvos segment` on bad input: one line, exit code 2, and the disk as it was."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from jaxvos.data import write_flow, write_mask


@pytest.fixture
def refused(run, snapshot, tmp_path, tiny_model):
    """Segments something and expects to be refused."""

    def call(source, *options, output=None, model=tiny_model):
        before = snapshot()
        code, _, err = run("segment", source, "-o", output or tmp_path / "out", "--model", model, *options)
        assert code == 2 and err.startswith("error: ") and err.count("\n") == 1 and err.endswith("\n"), err
        assert snapshot() == before
        return err

    return call


def _cut(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    return path


def test_no_such_input(refused, tmp_path):
    assert "there is no video or folder" in refused(tmp_path / "none.mp4")
    assert "matches no jpg or png frames" in refused(tmp_path / "*.jpg")


def test_files_that_are_no_video(refused, tmp_path):
    (tmp_path / "text.mp4").write_text("hello\n" * 100)
    (tmp_path / "nothing.mp4").write_text("")
    Image.new("RGB", (64, 48)).save(tmp_path / "one.png")
    assert "is not a video" in refused(tmp_path / "text.mp4")
    assert "is empty (0 bytes)" in refused(tmp_path / "nothing.mp4")
    assert "is one image, not a video" in refused(tmp_path / "one.png")


def test_folders_without_frames(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "davis" / "JPEGImages").mkdir(parents=True)
    assert "no jpg or png frames in the folder" in refused(tmp_path / "empty")
    assert "no jpg or png frames in the folder" in refused(tmp_path / "davis")


def test_one_frame(refused, video, folder):
    assert "one frame has no motion" in refused(folder(count=1))
    assert "one frame has no motion" in refused(video(count=1))


def test_frames_of_mixed_size(refused, folder):
    source = folder()
    Image.new("RGB", (32, 32)).save(source / "00002.jpg")
    assert "00002.jpg is 32x32 but 00000.jpg is 64x48" in refused(source)


def test_a_truncated_frame_after_output_has_begun(refused, folder):
    source = folder(count=8)
    _cut(source / "00006.jpg", 0.6)
    assert "00006.jpg cannot be read" in refused(source)


@pytest.mark.parametrize(("name", "share"), [("clip.mp4", 0.5), ("clip.avi", 0.6), ("clip.mkv", 0.6)])
def test_a_truncated_video(refused, video, name, share):
    assert "cut short" in refused(_cut(video(name, count=40), share))


def test_output_that_is_not_empty(refused, folder, tmp_path):
    source, output = folder(), tmp_path / "results"
    output.mkdir()
    (output / "notes.txt").write_text("mine")
    assert "is not empty: choose another folder or add --overwrite" in refused(source, output=output)
    assert "is a file: name a folder" in refused(source, output=output / "notes.txt")
    (output / "masks").mkdir()
    (output / "masks" / "00000.png").write_text("drawn by hand")
    assert "masks would be replaced, but is not of an earlier run" in refused(source, "--overwrite", output=output)


def test_a_failed_overwrite_keeps_the_earlier_results(run, refused, folder, tmp_path, tiny_model):
    source, output = folder(count=4), tmp_path / "results"
    assert run("segment", source, "-o", output, "--model", tiny_model).code == 0
    _cut(source / "00003.jpg", 0.6)
    refused(source, "--overwrite", output=output)


def test_output_among_the_frames(refused, folder, tmp_path):
    source = folder()
    for output in (source, source / "out", source / "a" / "b"):
        assert "results would mix with frames" in refused(source, "--overwrite", output=output)
    assert "results would mix with frames" in refused(f"{source}/*.jpg", "--overwrite", output=source / "out")
    folder("many/bear", count=2)
    for output in (tmp_path / "many", tmp_path / "many" / "out"):
        assert "results would mix with frames" in refused(tmp_path / "many", "--overwrite", output=output)


def test_results_that_would_replace_their_input(run, refused, folder, tmp_path, tiny_model):
    run("segment", folder(), "-o", tmp_path / "out", "--model", tiny_model)
    for source in ("masks", "overlay.mp4", "masks/*.png"):
        assert "would be replaced by its own results" in refused(tmp_path / "out" / source, "--overwrite")


def test_output_that_cannot_be_written(refused, folder, tmp_path):
    source = folder()
    (tmp_path / "file.txt").write_text("")
    assert "cannot write to" in refused(source, output=tmp_path / "file.txt" / "out")
    assert "cannot write to" in refused(source, output="/proc/jaxvos/out")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_output_without_permission(refused, folder, tmp_path):
    source = folder()
    (tmp_path / "locked").mkdir(mode=0o500)
    assert "Permission denied" in refused(source, output=tmp_path / "locked" / "out")


def test_a_full_disk(refused, folder, monkeypatch):
    def full(path, mask):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jaxvos.results._segmentation.write_mask", full)
    assert "No space left on device" in refused(folder())


@pytest.mark.parametrize("threshold", ["2", "0", "1", "-0.5", "nan"])
def test_thresholds(refused, folder, threshold):
    assert f"threshold {float(threshold)}: give a probability" in refused(folder(), f"--threshold={threshold}")


def test_flow(refused, folder, tmp_path):
    source = folder()
    error = refused(source, "--flow", "nonsense")
    assert "there is no model nonsense: give" in error
    assert error.endswith("; flow also comes from 'dis' or a folder of flow files\n")
    (tmp_path / "flow").mkdir()
    assert "no .flo, .pfm or .png flow files" in refused(source, "--flow", tmp_path / "flow")
    for index in range(2):
        write_flow(tmp_path / "flow" / f"{index:05d}.flo", np.zeros((48, 64, 2), np.float32))
    assert "no flow for frame 00002" in refused(source, "--flow", tmp_path / "flow")
    write_flow(tmp_path / "flow" / "00002.flo", np.zeros((24, 32, 2), np.float32))
    assert "00002.flo is 32x24 but its frame is 64x48" in refused(source, "--flow", tmp_path / "flow")
    (tmp_path / "flow" / "00002.flo").write_bytes(b"PIEH")
    assert "00002.flo" in refused(source, "--flow", tmp_path / "flow")


def test_models(refused, folder, tmp_path):
    source = folder()
    assert "there is no model resnet: give" in refused(source, model="resnet")
    (tmp_path / "text.safetensors").write_text("hello\n" * 100)
    assert "is not a safetensors file" in refused(source, model=tmp_path / "text.safetensors")
    assert "holds no checkpoint" in refused(source, model=source)


def test_a_checkpoint_of_another_configuration(refused, folder, tmp_path, tiny_model):
    from safetensors.numpy import load_file, safe_open, save_file

    with safe_open(tiny_model, framework="numpy") as file:
        story = json.loads(file.metadata()["metadata"])
    story["config"]["decoder_width"] = 32
    other = tmp_path / "other.safetensors"
    save_file(load_file(tiny_model), other, metadata={"metadata": json.dumps(story)})
    error = refused(folder(), model=other)
    assert f"{other} is a checkpoint of another configuration: " in error
    assert "/decoder/" in error and "has shape" in error


def test_a_bad_sequence_among_several_is_named(run, refused, folder, snapshot, tmp_path, tiny_model):
    for name in ("a", "b", "c"):
        folder(f"many/{name}")
    many, output = tmp_path / "many", tmp_path / "out"
    _cut(many / "b" / "00000.jpg", 0.6)
    assert refused(many).startswith("error: b: image ")  # its first frame is looked at before anything is done
    folder("many/d", count=1)
    (many / "b" / "00000.jpg").write_bytes((many / "a" / "00000.jpg").read_bytes())
    assert refused(many).startswith("error: d: one frame has no motion")
    assert refused(many, "--flow", many).startswith("error: d: one frame")
    (many / "d" / "00000.jpg").unlink()

    _cut(many / "b" / "00003.jpg", 0.6)  # found out only when it is reached
    before = snapshot()
    code, _, err = run("segment", many, "-o", output, "--model", tiny_model)
    assert code == 2 and err.count("\n") == 1
    assert err.startswith("error: b: image ") and err.endswith("(1 of 3 sequences are finished)\n")
    assert {path.relative_to(output).parts[0] for path in snapshot().keys() - before.keys() - {output}} == {"a"}
    assert (output / "a" / "results.json").is_file()
    assert "is not empty" in refused(many)


def test_several_resolutions(refused, folder, tmp_path):
    for resolution in ("480p", "1080p"):
        folder(f"davis/JPEGImages/{resolution}/bear")
    assert "has several resolutions; name one" in refused(tmp_path / "davis")


def test_objects_online_and_flow_networks(refused, folder, tmp_path, tiny_model, tiny_pwc, tiny_segflow):
    source = folder(count=2)
    for name, columns in (("one", [5] * 64), ("two", [5, 9] * 32), ("none", [0] * 64)):
        write_mask(tmp_path / f"{name}.png", np.array(columns, np.uint8)[None].repeat(48, 0))
    one, two, none = (("--first-mask", tmp_path / f"{name}.png") for name in ("one", "two", "none"))
    for words, model, options in (
        ("learns online from the first mask: give their mask (--first-mask PNG)", tiny_segflow, ("--online",)),
        ("tells 2 objects apart only after learning them: add --online, or mark one", tiny_segflow, two),
        ("tells 2 objects apart only after learning them", tiny_segflow, (*two, "--no-online")),
        ("none.png holds no object", tiny_segflow, (*none, "--online")),
        ("0 steps of online learning", tiny_segflow, (*one, "--online", "--online-steps", "0")),
        ("a patience of 0 evaluations", tiny_segflow, (*one, "--online", "--online-patience", "0")),
        ("tiny has no use for online learning", tiny_model, ("--online",)),
        ("finds objects by itself and takes no first mask", tiny_pwc, one),
        ("tiny-pwc segments nothing", tiny_pwc, ()),
        ("tiny estimates no flow: give a flow network", tiny_model, ("--flow", tiny_model)),
        ("tiny-segflow has no use for flow", tiny_segflow, ("--flow", tiny_pwc)),
    ):
        assert words in refused(source, *options, model=model)
