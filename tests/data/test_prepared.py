"""What is prepared is read back as it was, and nothing half-made or damaged passes for it."""

import builtins
import dataclasses
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from data.dataset_fixtures import HEIGHT, MAKERS, WIDTH, davis16, davis17, flow_files

from jaxvos.data import (
    LAYOUTS,
    AnnotatedSequence,
    ClipConfig,
    DavisSequence,
    PreparedSequence,
    _builder,
    _prepared,
    list_sequences,
    load_frames,
    open_dataset,
    prepare_dataset,
    read_annotation,
    read_flow,
    read_image,
    sample_clip,
    write_mask,
)
from jaxvos.data._layouts_raw import RawSequence
from jaxvos.errors import InputError


def _refused(match: str, call) -> None:
    with pytest.raises(InputError, match=match) as error:
        call()
    assert "\n" not in str(error.value)


@pytest.fixture
def source(tmp_path) -> Path:
    (tmp_path / "DAVIS").mkdir()
    davis16(tmp_path / "DAVIS")
    return tmp_path / "DAVIS"


def _prepare(source: Path, to: Path, name: str = "davis16"):
    return prepare_dataset(name, source, to, progress=False)


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_data_set_is_read_as_its_folder(name, tmp_path):
    (tmp_path / "source").mkdir()
    MAKERS[name](tmp_path / "source")
    prepared = _prepare(tmp_path / "source", tmp_path / "to", name)
    raw = LAYOUTS[name].scan(tmp_path / "source")
    assert prepared.folder == tmp_path / "to" / name / "1.0.0"
    assert list(prepared.splits) == list(raw)
    for split, sequences in raw.items():
        read = open_dataset(name, split=split, data_dir=tmp_path / "to")
        assert [s.name for s in read] == [s.name for s in sequences]
        counts = prepared.splits[split]
        assert counts.frames == sum(map(len, read)) and counts.sequences == len(read)
        found = [_same(*pair, tmp_path) for pair in zip(read, sequences, strict=True)]
        assert (counts.masks, counts.flows) == tuple(map(sum, zip(*found, strict=True)))
        assert counts.masks + counts.flows > 0 or split.startswith("test")
        _sample(next((s for s in read if s.annotated), None), flow=False)
        _sample(read[0] if counts.flows else None, flow=True)
    assert sorted(p.name for p in (tmp_path / "to").iterdir()) == [name]  # nothing temporary is left


def _sample(sequence: PreparedSequence | None, *, flow: bool) -> None:
    """A clip of one frame is a frame of the sequence, with its masks or its flow."""
    if sequence is None:
        return
    config = ClipConfig(num_frames=1, size=(HEIGHT, WIDTH), masks=not flow, flow=flow, num_objects=255)
    clip = sample_clip(0, sequence, config)
    image = np.round(np.asarray(clip.images)[0, 0] * 255)
    frames = range(len(sequence)) if flow else sequence.annotated
    index = next(i for i in frames if np.array_equal(sequence.image(i), image))
    if flow:
        np.testing.assert_array_equal(np.asarray(clip.flow)[0, 0], sequence.flow(index))
    else:
        ids = np.unique(sequence.mask(index))
        alive = np.asarray(clip.alive)[0]
        assert alive.sum() == 1 + len(set(ids.tolist()) - {0, 255})


def _same(read: PreparedSequence, raw: RawSequence, tmp_path: Path) -> tuple[int, int]:
    """Compares every pixel and vector, and returns the number of masks and of flows."""
    video = read.frames()
    assert list(video.names) == list(raw.frame_names) and video.length == len(read) == len(raw.images)
    assert (video.name, video.size, video.fps) == (raw.name, (HEIGHT, WIDTH), 24.0)
    for _ in range(2):  # more than once
        for image, path in zip(video, raw.images, strict=True):
            assert np.array_equal(image, read_image(path))
    masks = list(read.masks())
    for index, mask in enumerate(masks):
        stored = raw.mask_bytes(index)
        assert (mask is None) == (not stored)
        if mask is not None:
            (tmp_path / "stored.png").write_bytes(stored)
            assert np.array_equal(mask, read_annotation(tmp_path / "stored.png"))
    assert read.annotated == tuple(index for index, mask in enumerate(masks) if mask is not None)
    flows = list(read.flows())
    for flow, path in zip(flows, raw.flows or [None] * len(read), strict=True):
        assert (flow is None) == (path is None)
        if flow is not None and path is not None:
            assert all(np.array_equal(a, b) for a, b in zip(flow, read_flow(path), strict=True))
    return sum(mask is not None for mask in masks), sum(flow is not None for flow in flows)


def test_what_is_said(source, tmp_path):
    prepared = _prepare(source, tmp_path / "to")
    lines = prepared.summary().splitlines()
    assert lines[0] == f"prepared {prepared.folder}"
    assert lines[1:3] == ["train: 2 sequences, 4 frames, 4 with masks", "val: 1 sequences, 2 frames, 2 with masks"]
    assert lines[3] == "note: train has 2 sequences, the release 30"
    metadata = json.loads((prepared.folder / "metadata.json").read_text())
    assert metadata["prepared_from"] == str(source.resolve()) and metadata["jaxvos"]
    assert metadata["terms"] == LAYOUTS["davis16"].terms and metadata["splits"]["train"]["names"] == ["bus", "bear"]
    assert len(metadata["splits"]["train"]["sha256"]) == 64


def test_flow_is_stored(tmp_path, monkeypatch):
    davis17(tmp_path)
    (base, *_) = LAYOUTS["davis17"].scan(tmp_path)["val"]
    paths = flow_files(tmp_path / "flow", 2)
    extra = flow_files(tmp_path / "more", 3)
    with_flow = RawSequence("camel", base.images, base.masks, paths)
    in_flo = RawSequence("bear", base.images, base.masks, (extra[1], None))
    monkeypatch.setattr(_builder.Layout, "scan", lambda self, root: {"val": [with_flow, in_flo]})
    assert _prepare(tmp_path, tmp_path / "to", "davis17").splits["val"].flows == 2
    for sequence, path in zip(open_dataset(tmp_path / "to/davis17", split="val"), (paths[0], extra[1]), strict=True):
        assert path is not None
        first, last = sequence.flows()
        assert last is None and first is not None
        assert all(np.array_equal(a, b) for a, b in zip(first, read_flow(path), strict=True))
    assert paths[0] is not None
    paths[0].write_bytes(b"")
    _refused("00000.png cannot be read", lambda: _prepare(tmp_path, tmp_path / "other", "davis17"))


def _zip(source: Path, archive: Path) -> Path:
    return Path(shutil.make_archive(str(archive.with_suffix("")), "zip", source.parent, source.name))


def _tar(source: Path, archive: Path) -> Path:
    with tarfile.open(archive, "w:gz" if archive.suffix == ".gz" else "w") as file:
        file.add(source, source.name)
    return archive


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz"])
def test_archives(suffix, source, tmp_path):
    archive = (_zip if suffix == "zip" else _tar)(source, tmp_path / f"DAVIS.{suffix}")
    whole = archive.read_bytes()
    between = 3 * len(whole) // 4
    if suffix == "tar":
        with tarfile.open(archive) as file:
            between = file.getmembers()[4].offset  # where unpacking alone would not notice
    for cut in (between, len(whole) // 2, 10, 0):
        archive.write_bytes(whole[:cut])
        _refused(f"archive .*DAVIS.{suffix} is damaged or cut short", lambda: _prepare(archive, tmp_path / "to"))
        assert list((tmp_path / "to").iterdir()) == []
    archive.write_bytes(whole)
    _prepare(archive, tmp_path / "to")
    _prepare(source, tmp_path / "from_folder")
    one, other = (open_dataset(tmp_path / to / "davis16", split="train") for to in ("to", "from_folder"))
    for a, b in zip(one, other, strict=True):
        assert a.name == b.name and all(np.array_equal(x, y) for x, y in zip(a.frames(), b.frames(), strict=True))


def test_damaged_and_evil_archives(source, tmp_path):
    archive = _zip(source, tmp_path / "DAVIS.zip")
    with zipfile.ZipFile(archive) as file:
        entry = next(info for info in file.infolist() if info.filename.endswith(".jpg"))
    content = bytearray(archive.read_bytes())
    content[entry.header_offset + 100] ^= 255
    archive.write_bytes(content)
    _refused("DAVIS.zip is damaged", lambda: _prepare(archive, tmp_path / "to"))
    with tarfile.open(tmp_path / "evil.tar", "w") as file:
        file.addfile(tarfile.TarInfo("../evil.txt"), io.BytesIO())
    _refused("evil.tar is damaged", lambda: _prepare(tmp_path / "evil.tar", tmp_path / "to"))
    assert not list(tmp_path.rglob("evil.txt"))


def test_large_splits_are_several_files_in_order(source, tmp_path, monkeypatch):
    first = sum(path.stat().st_size for path in (source / "JPEGImages/480p/camel").iterdir())
    monkeypatch.setattr(_builder, "_SHARD", first + 1)
    lines = "".join(f"{name}/{i}.jpg\n" for name in ("camel", "bear", "bus") for i in range(2))
    (source / "ImageSets/480p/train.txt").write_text(lines)
    folder = _prepare(source, tmp_path / "to").folder
    assert len(list(folder.glob("*train*"))) == 2 and len(list(folder.glob("*val*"))) == 1
    assert [s.frames().name for s in open_dataset(folder, split="train")] == ["camel", "bear", "bus"]
    info = json.loads((folder / "dataset_info.json").read_text())
    next(split for split in info["splits"] if split["name"] == "val")["shardLengths"] = ["2"]
    (folder / "dataset_info.json").write_text(json.dumps(info))
    _refused("split val in .*2 records for 1 seq", lambda: open_dataset(folder, split="val"))
    next(folder.glob("*train*-00001-*")).unlink()
    _refused(
        "split train in .* cannot be read .*00001-of-00002 is missing", lambda: open_dataset(folder, split="train")
    )


def test_wrong_calls(source, tmp_path):
    _refused("no data set 'davis'; there are", lambda: _prepare(source, tmp_path / "to", "davis"))
    _refused(
        "no .*nowhere: give the folder or the archive of DAVIS-2016", lambda: _prepare(tmp_path / "nowhere", source)
    )
    (tmp_path / "DAVIS.rar").touch()
    _refused("neither a folder nor a zip or tar", lambda: _prepare(tmp_path / "DAVIS.rar", tmp_path / "to"))
    _refused("cannot write into .*DAVIS.rar", lambda: _prepare(source, tmp_path / "DAVIS.rar"))
    assert not (tmp_path / "to").exists()
    _refused("to/davis16 is no prepared data set: run", lambda: open_dataset(tmp_path / "to/davis16", split="train"))
    _prepare(source, tmp_path / "to")
    _refused("1.0.0 is there already: remove it", lambda: _prepare(source, tmp_path / "to"))
    _refused("no split 'test' in .*it has train, val", lambda: open_dataset(tmp_path / "to/davis16", split="test"))
    assert len(open_dataset(tmp_path / "to/davis16/1.0.0", split="val")) == 1


def test_without_tensorflow_datasets(source, tmp_path, monkeypatch):
    load = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "tensorflow_datasets":
            raise ImportError(f"No module named '{name}'")
        return load(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    _refused(r"pip install 'jaxvos\[data\]'", lambda: _prepare(source, tmp_path / "to"))
    assert not (tmp_path / "to").exists()


def test_a_wrong_file_leaves_nothing(source, tmp_path):
    damaged = source / "JPEGImages/480p/camel/00001.jpg"  # the last one: train is written by then
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2])
    _refused("camel/00001.jpg cannot be read", lambda: _prepare(source, tmp_path / "to"))
    assert [p for p in (tmp_path / "to").rglob("*") if p.is_file()] == []
    damaged.write_bytes(whole)
    _prepare(source, tmp_path / "to")
    assert len(open_dataset("davis16", split="val", data_dir=tmp_path / "to")) == 1


_KILLED = """
import os, signal, sys
from jaxvos.data import _builder
example = _builder._example
def stop(sequence):
    if sequence.name == "camel":
        print(*os.listdir(sys.argv[2]), *os.listdir(sys.argv[2] + "/davis16"), file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    return example(sequence)
_builder._example = stop
_builder.prepare_dataset("davis16", sys.argv[1], sys.argv[2], progress=False)
"""


def test_a_killed_run_starts_over(source, tmp_path):
    to = tmp_path / "to"
    run = subprocess.run([sys.executable, "-c", _KILLED, source, to], capture_output=True, text=True,
                         env=os.environ | {"JAX_PLATFORMS": "cpu"})  # fmt: skip
    assert run.returncode == -signal.SIGKILL, run.stderr
    assert "incomplete." in run.stderr and ".davis16-preparing-" in run.stderr
    _refused("davis16 is not complete: run", lambda: open_dataset(to / "davis16", split="train"))
    _prepare(source, to)
    assert [p.name for p in to.iterdir()] == ["davis16"] and [p.name for p in (to / "davis16").iterdir()] == ["1.0.0"]
    assert len(open_dataset(to / "davis16", split="train")) == 2


def test_changed_lists_and_damaged_records(source, tmp_path):
    folder = _prepare(source, tmp_path / "to").folder
    metadata = json.loads((folder / "metadata.json").read_text())
    metadata["splits"]["train"]["names"] = ["bear", "bus"]
    (folder / "metadata.json").write_text(json.dumps(metadata))
    _refused("the list of split train in .* was changed", lambda: open_dataset(folder, split="train"))
    metadata["splits"]["train"]["sha256"] = _builder.split_checksum(["bear", "bus"])
    (folder / "metadata.json").write_text(json.dumps(metadata))
    swapped = open_dataset(folder, split="train")[0]
    _refused("sequence bear in .* cannot be read .it is another one", swapped.frames)

    (records,) = folder.glob("*val*array_record*")
    whole = records.read_bytes()
    (expected,) = open_dataset(folder, split="val")
    images = list(expected.frames())
    refused = 0
    written = np.flatnonzero(np.frombuffer(whole, np.uint8))
    for position in written[:: len(written) // 60].tolist():
        records.write_bytes(whole[:position] + bytes([whole[position] ^ 255]) + whole[position + 1 :])
        try:
            (read,) = open_dataset(folder, split="val")
            assert all(np.array_equal(a, b) for a, b in zip(read.frames(), images, strict=True))  # not a byte of it
        except InputError as error:
            assert "cannot be read" in str(error) and "camel" in str(error) or "split val" in str(error)
            refused += 1
    assert refused > 40
    records.write_bytes(whole[: len(whole) // 2])
    _refused("cannot be read .*prepare it again", lambda: [s.frames() for s in open_dataset(folder, split="val")])
    (folder / "dataset_info.json").write_text("{")
    _refused("1.0.0 cannot be read", lambda: open_dataset(folder, split="val"))


def test_masks_must_fit(source, tmp_path, monkeypatch):
    write_mask(source / "Annotations/480p/camel/00001.png", np.zeros((3, 4), np.uint8))
    monkeypatch.setattr(RawSequence, "check", lambda self: None)
    (sequence,) = open_dataset(_prepare(source, tmp_path / "to").folder, split="val")
    _refused("camel/00001 is 4x3 but its frame is 12x8", lambda: list(sequence.masks()))


def test_opening_reads_nothing_and_the_frames_of_a_record_are_read_together(source, tmp_path, monkeypatch):
    bus, bear = LAYOUTS["davis16"].scan(source)["train"]
    part = dataclasses.replace(bus, masks=((), bus.masks[1]))
    monkeypatch.setattr(_builder.Layout, "scan", lambda self, root: {"train": [part, bear]})
    folder = _prepare(source, tmp_path / "to").folder
    made, reads = _prepared._reader, []

    def counting(*args):
        read = made(*args)
        return lambda: reads.append(args[3]) or read()

    monkeypatch.setattr(_prepared, "_reader", counting)
    opened = open_dataset(folder, split="train")
    assert [(s.name, len(s), s.annotated) for s in opened] == [("bus", 2, (1,)), ("bear", 2, (0, 1))] and not reads
    for bus in (opened[0], open_dataset(folder, split="train")[0]):
        frames, masks = list(bus.frames()), list(bus.masks())
        assert all(np.array_equal(bus.image(index), frames[index]) for index in (1, 0))
        assert np.array_equal(bus.mask(1), masks[1]) and masks[0] is None
    assert reads == ["bus", "bus"]
    metadata = json.loads((folder / "metadata.json").read_text())
    metadata["splits"]["train"]["annotated"][0] = "11"
    (folder / "metadata.json").write_text(json.dumps(metadata))
    _refused("sequence bus in .* cannot be read .it is another one", open_dataset(folder, split="train")[0].frames)
    del metadata["splits"]["train"]["annotated"]
    (folder / "metadata.json").write_text(json.dumps(metadata))
    _refused("the list of split train in .* was changed", lambda: open_dataset(folder, split="train"))


def test_training_frames(source, tmp_path):
    _prepare(source, tmp_path / "to")
    prepared, listed = open_dataset(tmp_path / "to/davis16", split="train"), list_sequences(source, split="480p/train")
    assert all(isinstance(s, AnnotatedSequence) for s in (*prepared, *listed)) and isinstance(listed[0], DavisSequence)

    def no_motion(first, second, *, name=""):
        return np.zeros((*first.shape[:2], 2), np.float32)

    one, other = (load_frames(s, size=(16, 16), flow=no_motion, progress=False) for s in (prepared, listed))
    for a, b in zip(one, other, strict=True):
        assert np.array_equal(a, b) and len(a) == 2


@pytest.mark.data
def test_real_davis_2016(data_dir, tmp_path):
    source = tmp_path / "source"
    (source / "ImageSets").mkdir(parents=True)
    names = ("bear", "breakdance-flare", "mallard-fly", "swing")
    (source / "ImageSets/train.txt").write_text("\n".join(names))
    for folder in ("JPEGImages", "Annotations"):
        (source / folder).symlink_to(data_dir / "davis2016" / folder)
    prepared = _prepare(source, tmp_path / "to")
    read = open_dataset(prepared.folder, split="train")
    listed = list_sequences(source, split="train", resolution="256p")
    assert prepared.splits["train"].masks == prepared.splits["train"].frames == sum(map(len, listed))
    for one, other in zip(read, listed, strict=True):
        assert one.name == other.name and list(one.frames().names) == list(other.frames().names)
        assert all(np.array_equal(a, b) for a, b in zip(one.frames(), other.frames(), strict=True))
        assert all(np.array_equal(a, b) for a, b in zip(one.masks(), other.masks(), strict=True))
