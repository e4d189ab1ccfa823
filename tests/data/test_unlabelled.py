"""Videos without annotation: what is read and what is skipped, and clips in which labels stay on what they label."""

import contextlib
from fractions import Fraction
from itertools import islice
from pathlib import Path

import chex
import numpy as np
import pytest
from PIL import Image

from jaxvos.data import (
    ClipConfig,
    ClipSource,
    UnlabelledVideo,
    read_videos,
    sample_clip,
    unlabelled_batches,
)
from jaxvos.errors import InputError

HEIGHT, WIDTH = 32, 48
CODECS = {"mp4": "libx264", "avi": "mpeg4", "ts": "mpeg2video"}


def _frames(count: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Grey pictures whose brightness is six times their number."""
    return np.broadcast_to(6 * np.arange(count, dtype=np.uint8)[:, None, None, None], (count, height, width, 3))


def _folder(path: Path, count: int, **size: int) -> Path:
    path.mkdir(parents=True)
    for index, frame in enumerate(_frames(count, **size)):
        Image.fromarray(frame).save(path / f"{index:05d}.png")
    return path


def _file(path: Path, count: int) -> Path:
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(CODECS[path.suffix[1:]], rate=Fraction(25))
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        stream.bit_rate, stream.codec_context.gop_size = 4_000_000, 1  # small changes are not left out
        for frame in _frames(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def _read(source: Path, **options):
    return read_videos(source, progress=False, **options)


def _numbers(video: UnlabelledVideo) -> list[int]:
    return np.rint(video.frames.mean(axis=(1, 2, 3)) / 6).astype(int).tolist()


def _refused(match: str, source: Path, **options) -> None:
    with pytest.raises(InputError, match=match) as error:
        _read(source, **options)
    assert "\n" not in str(error.value)


def test_files_and_folders_side_by_side(tmp_path):
    _folder(tmp_path / "bear", 4)
    _folder(tmp_path / "two", 2)
    _file(tmp_path / "cat.mp4", 5)
    _file(tmp_path / "bear.avi", 3)  # shares its name with a folder
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(4000))
    (tmp_path / "empty.avi").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("no video")
    (tmp_path / ".hidden.mp4").write_bytes(b"")
    (tmp_path / "nothing").mkdir()
    found = _read(tmp_path)
    assert {video.name: len(video) for video in found.videos} == {"bear": 4, "bear.avi": 3, "cat": 5}
    assert list(found.skipped) == ["empty", "noise", "two"]
    assert "is empty (0 bytes)" in found.skipped["empty"] and "is not a video" in found.skipped["noise"]
    assert found.skipped["two"] == "fewer than 3 frames at a stride of 1: 2"
    assert all(video.frames.dtype == np.uint8 and video.labels is None for video in found.videos)
    assert [_numbers(video) for video in found.videos] == [[0, 1, 2, 3], [0, 1, 2], [0, 1, 2, 3, 4]]


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_single_video(tmp_path, kind):
    source = _folder(tmp_path / "bear", 4) if kind == "folder" else _file(tmp_path / "bear.mp4", 4)
    found = _read(source)
    assert [(video.name, _numbers(video)) for video in found.videos] == [("bear", [0, 1, 2, 3])] and not found.skipped


def test_a_pattern_of_frames(tmp_path):
    _folder(tmp_path / "bear", 4)
    found = _read(tmp_path / "bear" / "*.png")
    assert [(video.name, _numbers(video)) for video in found.videos] == [("bear", [0, 1, 2, 3])]
    with pytest.raises(InputError, match=r"no video of .*\*\.jpg can be used"):
        _read(tmp_path / "bear" / "*.jpg")


def test_the_layout_of_davis(tmp_path):
    for name in ("bear", "bus"):
        _folder(tmp_path / "JPEGImages" / "256p" / name, 3)
    for source in (tmp_path, tmp_path / "JPEGImages" / "256p"):
        assert [video.name for video in _read(source).videos] == ["bear", "bus"]


def test_names_and_those_to_leave_out(tmp_path):
    for name in ("ant", "bee", "cow"):
        _folder(tmp_path / name, 3)
    assert [video.name for video in _read(tmp_path, names=("cow", "ant")).videos] == ["ant", "cow"]
    assert [video.name for video in _read(tmp_path, exclude=("bee", "whale")).videos] == ["ant", "cow"]
    assert [video.name for video in _read(tmp_path, names={"ant", "bee"}, exclude={"bee"}).videos] == ["ant"]
    _refused("there is no video whale in .*: it has ant, bee, cow", tmp_path, names=("ant", "whale"))
    _refused("none of the videos in .* is left", tmp_path, exclude=("ant", "bee", "cow"))


@pytest.mark.parametrize("kind", ["folder", "mp4", "avi", "ts"])
def test_strides_are_even_and_reach_the_end(tmp_path, kind):
    """Transport streams do not say how long they are, so that the stride is doubled until what is seen fits."""
    source = _folder(tmp_path / "film", 40) if kind == "folder" else _file(tmp_path / f"film.{kind}", 40)
    kept = {
        options: _numbers(_read(source, stride=options[0], max_frames=options[1]).videos[0])
        for options in [(1, 200), (3, 200), (1, 40), (1, 15), (2, 15)]
    }
    assert kept[1, 200] == kept[1, 40] == list(range(40)) and kept[3, 200] == list(range(0, 40, 3))
    if kind == "ts":
        assert kept[1, 15] == list(range(0, 40, 4)) == kept[2, 15]
    else:
        assert kept[1, 15] == list(range(0, 40, 3)) == kept[2, 15]  # 2 would give 20 frames


def test_few_frames_are_what_is_left_after_the_stride(tmp_path):
    _folder(tmp_path / "long", 12)
    _folder(tmp_path / "short", 8)
    found = _read(tmp_path, stride=4)
    assert [video.name for video in found.videos] == ["long"]
    assert found.skipped == {"short": "fewer than 3 frames at a stride of 4: 2"}
    assert not _read(tmp_path, stride=4, minimum=2).skipped


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [((32, 48), 16, (16, 24)), ((48, 32), 16, (24, 16)), ((32, 48), 32, (32, 48)), ((32, 48), 256, (32, 48)),
     ((33, 59), 11, (11, 20))],
)  # fmt: skip
def test_frames_shrink_to_the_short_side_and_never_grow(tmp_path, size, short_side, expected):
    source = _folder(tmp_path / "film", 3, height=size[0], width=size[1])
    assert _read(source, short_side=short_side).videos[0].frames.shape == (3, *expected, 3)


def test_shrinking_averages(tmp_path):
    folder = _folder(tmp_path / "film", 3)
    stripes = np.broadcast_to(200 * (np.arange(WIDTH) % 2)[:, None], (HEIGHT, WIDTH, 3)).astype(np.uint8)
    Image.fromarray(stripes).save(folder / "00001.png")
    assert (_read(folder, short_side=HEIGHT // 2).videos[0].frames[1] == 100).all()


def test_videos_that_break_off_are_skipped_whole(tmp_path):
    _folder(tmp_path / "whole", 3)
    folder = _folder(tmp_path / "folder", 6)
    content = (folder / "00005.png").read_bytes()
    (folder / "00005.png").write_bytes(content[: len(content) // 2])
    file = _file(tmp_path / "file.avi", 40)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 2 // 3])
    found = _read(tmp_path)
    assert [video.name for video in found.videos] == ["whole"] and list(found.skipped) == ["file", "folder"]
    assert "00005.png cannot be read" in found.skipped["folder"] and "ends early" in found.skipped["file"]


def test_nothing_to_read(tmp_path):
    _refused(f"there is no video or folder {tmp_path}/away: check the path", tmp_path / "away")
    _refused(r"there is no video in .*: give a video file \(mp4", tmp_path)
    for name in ("a.mp4", "b.avi"):
        (tmp_path / name).write_bytes(b"garbage")
    _refused(f"no video of {tmp_path} can be used, 2 skipped; the first, a: .*a.mp4 is not a video", tmp_path)
    for wrong in ({"short_side": 0}, {"stride": 0}, {"minimum": 0}, {"max_frames": 2}):
        _refused("want numbers from 1 on", tmp_path, **wrong)


@pytest.mark.parametrize("shown", [True, False])
def test_the_bar(tmp_path, shown, monkeypatch, capsys):
    import sys

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    read_videos(_folder(tmp_path / "film", 3), progress=shown)
    assert ("reading" in capsys.readouterr().err) == shown


def _square(count: int = 12, *, height: int = 64, width: int = 96, labels: bool = True) -> UnlabelledVideo:
    """A white square that goes to the right by a cell of eight pixels a frame, on a ground as bright as its number."""
    frames = np.broadcast_to(4 * np.arange(count)[:, None, None, None], (count, height, width, 3)).astype(np.uint8)
    ids = np.zeros((count, height // 8, width // 8), np.uint8)
    for index in range(count):
        frames[index, 24:48, 8 * (index % 9) : 8 * (index % 9) + 24] = 255
        ids[index, 3:6, index % 9 : index % 9 + 3] = 3
    return UnlabelledVideo("square", frames, ids if labels else None)


def test_a_video_is_a_source_of_clips():
    video = _square()
    assert isinstance(video, ClipSource) and (video.name, len(video)) == ("square", 12)
    assert video.annotated == tuple(range(12))
    np.testing.assert_array_equal(video.image(5), video.frames[5])
    with pytest.raises(ValueError, match="square has no flow"):
        video.flow(0)


def test_labels_are_interpolated_one_by_one():
    """Between cells 0 and 3 there is never a 1 or a 2; corners are cut, as they are between linear weights."""
    video = _square()
    for index in (0, 4):
        mask = video.mask(index)
        assert mask.shape == (64, 96) and mask.dtype == np.uint8 and set(np.unique(mask)) == {0, 3}
        white = video.frames[index, ..., 0] == 255
        assert ((mask == 3) & white).sum() / ((mask == 3) | white).sum() > 0.95
        assert (mask == 3).sum() < white.sum() and not (mask == 3)[~white].any()
    four = UnlabelledVideo("four", np.zeros((1, 40, 40, 3), np.uint8), np.array([[[1, 5], [9, 200]]], np.uint8))
    np.testing.assert_array_equal(four.mask(0)[[0, 0, 39, 39], [0, 39, 0, 39]], [1, 5, 9, 200])
    np.testing.assert_array_equal(np.bincount(four.mask(0).ravel())[[1, 5, 9, 200]], 400)


def test_other_labels_for_the_same_frames():
    bare = _square(labels=False)
    assert not bare.mask(3).any() and bare.mask(3).shape == (64, 96)
    labelled = bare.with_labels(np.full((12, 2, 3), 7, np.uint8))
    assert labelled.frames is bare.frames and (labelled.mask(3) == 7).all() and bare.labels is None
    assert not labelled.with_labels(None).mask(3).any()
    with pytest.raises(ValueError, match="11 frames of labels for the 12 of square"):
        bare.with_labels(np.zeros((11, 2, 3), np.uint8))


def test_clips_with_and_without_masks():
    config = ClipConfig(num_frames=3, size=(32, 48))
    clip = sample_clip(0, _square(), config)
    assert clip.alive.tolist() == [[True, True, False]] and clip.masks[..., 1].any(axis=(2, 3)).all()
    bare = sample_clip(0, _square(), ClipConfig(num_frames=3, size=(32, 48), masks=False))
    assert bare.masks is None and bare.alive is None and bare.images.shape == (1, 3, 32, 48, 3)


def _batches(videos, count=1, *, start=0, **options):
    options = {"size": (64, 64), "batch_size": 4, "masks": True, "seed": 0} | options
    with contextlib.closing(unlabelled_batches(videos, **options)(start)) as iterator:
        return list(islice(iterator, count))


def _shown(clip) -> np.ndarray:
    """The numbers of the frames, told by their ground, which most of the upper edge shows."""
    return np.rint(np.median(clip.images[:, :, :4, :, 0], axis=(2, 3)) * 255 / 4).astype(int)


def test_batches_of_two_neighbours_and_a_distant_frame():
    frames = np.concatenate([_shown(clip) for clip in _batches([_square(40)], 25, crop=(1.0, 1.0))])
    pairs, far = np.diff(frames).T
    assert set(pairs) == {1, -1} and (np.sign(pairs) == np.sign(far)).all()
    assert 0.3 < (pairs > 0).mean() < 0.7
    assert np.abs(far).min() == 5 and np.abs(far).max() == 25 and len(set(np.abs(far))) > 15
    near = np.concatenate([_shown(clip) for clip in _batches([_square(40)], 8, min_skip=2, max_skip=3)])
    assert set(np.abs(np.diff(near)[:, 1])) == {2, 3}


@pytest.mark.parametrize(("count", "distance"), [(3, 1), (4, 2), (6, 4)])
def test_short_videos_give_the_farthest_frame(count, distance):
    frames = np.concatenate([_shown(clip) for clip in _batches([_square(count)], 4)])
    assert set(np.abs(np.diff(frames)[:, 0])) == {1} and set(np.abs(np.diff(frames)[:, 1])) == {distance}


def test_labels_stay_on_what_they_label_under_crop_and_flip():
    """What is labelled is white, and what is not is dark, but for the corners that interpolation cuts."""
    (clip,) = _batches([_square(40)], batch_size=32, crop=(0.5, 1.0))
    assert clip.alive[:, 1].all() and not clip.alive[:, 2].any()
    white, labelled = clip.images[..., 0] > 0.8, clip.masks[..., 1] > 0.5
    for seen, mask in zip(white.reshape(-1, 64, 64), labelled.reshape(-1, 64, 64), strict=True):
        if seen.sum() > 100:
            assert (seen & mask).sum() / (seen | mask).sum() > 0.85
    np.testing.assert_array_equal(clip.masks.sum(axis=-1), 1)
    widths = white[:, 0].any(axis=1).sum(axis=1)
    assert len(set(widths.tolist())) > 5  # as many sizes of crops
    ramp = np.broadcast_to(np.arange(96, dtype=np.uint8)[:, None], (12, 64, 96, 3))
    (clip,) = _batches([UnlabelledVideo("ramp", ramp)], batch_size=32)
    mirrored = clip.images[:, 0, 32, 0, 0] > clip.images[:, 0, 32, -1, 0]
    assert 0.2 < mirrored.mean() < 0.8


def test_clips_without_labels_have_no_object_alive():
    empty = UnlabelledVideo("empty", np.zeros((6, 64, 96, 3), np.uint8), np.zeros((6, 8, 12), np.uint8))
    speck = np.zeros((6, 8, 12), np.uint8)
    speck[5, 0, 0] = 1  # in the last frame alone
    for video in (empty, empty.with_labels(None), empty.with_labels(speck)):
        for clip in _batches([video], 2):
            chosen = clip.masks[..., 1:].any(axis=(1, 2, 3))
            np.testing.assert_array_equal(clip.alive, np.concatenate([np.ones((4, 1), bool), chosen], axis=1))
            assert (clip.masks.sum(axis=-1) == 1).all() and np.isfinite(clip.images).all()
    assert not any(clip.alive[:, 1:].any() for clip in _batches([empty, empty.with_labels(None)], 2))
    small = empty.with_labels(np.zeros((6, 64, 96), np.uint8))
    small.labels[:, 10:14, 10:14] = 1  # 16 of 6144 pixels
    assert not _batches([small], crop=(1.0, 1.0))[0].alive[:, 1:].any()


def test_batches_follow_from_the_seed_and_the_step():
    videos = [_square(20), _square(30, labels=False)]
    straight = _batches(videos, 4)
    chex.assert_trees_all_equal(_batches(videos, 2, start=2), straight[2:])
    assert (_batches(videos, seed=1)[0].images != straight[0].images).any()
    (clip,) = _batches(videos, masks=False)
    assert clip.masks is None and clip.alive is None


OPTIONS = {"size": (32, 48), "batch_size": 2, "num_objects": 3, "min_skip": 9, "max_skip": 5, "crop": (0.5, 0.6)}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_changes_the_batches(name):
    with pytest.raises(AssertionError):
        chex.assert_trees_all_equal(*(_batches([_square(40)], 2, **options) for options in ({}, {name: OPTIONS[name]})))


def test_batches_that_cannot_be():
    with pytest.raises(InputError, match="no sequence has 3 annotated frames"):
        _batches([_square(2)])
    with pytest.raises(InputError, match="min_skip 9"):
        _batches([_square()], min_skip=9, max_skip=8)
