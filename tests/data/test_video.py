"""Whatever is a video goes through one door, frame by frame; whatever is not is refused in one line."""

import subprocess
import sys
import tracemalloc
from fractions import Fraction
from itertools import islice
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxvos.data import open_video, read_image
from jaxvos.errors import InputError

CODECS = {"mp4": "libx264", "mov": "mpeg4", "avi": "mpeg4", "mkv": "libx264", "webm": "libvpx"}


def _frames(count: int = 5, height: int = 32, width: int = 48) -> np.ndarray:
    """Smooth pictures, so that a lossy codec keeps them, in a different colour each."""
    t, y, x = np.meshgrid(np.arange(count), np.arange(height), np.arange(width), indexing="ij")
    return np.stack([40 + 30 * (t % 7), 3 * y + 20, 3 * x + 20], axis=-1).astype(np.uint8)


def _write_video(path: Path, frames: np.ndarray, *, fps: int = 10, sound: bool = False) -> Path:
    import av

    options = {"movflags": "faststart"} if path.suffix in (".mp4", ".mov") else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(CODECS[path.suffix[1:]], rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = 5
        if sound:
            voice = container.add_stream("aac", rate=16000)
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
        if sound:
            silence = av.AudioFrame(format="fltp", layout="mono", samples=1024)
            silence.sample_rate, silence.time_base = 16000, Fraction(1, 16000)
            for plane in silence.planes:
                plane.update(bytes(plane.buffer_size))
            for i in range(64):  # four seconds: much longer than the pictures
                silence.pts = 1024 * i
                container.mux(voice.encode(silence))
            container.mux(voice.encode(None))
    return path


def _write_folder(folder: Path, frames, names=None) -> Path:
    folder.mkdir(parents=True)
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / (names[i] if names else f"{i:05d}.png"))
    return folder


def _refused(match: str, source, **options) -> str:
    with pytest.raises(InputError, match=match) as error:
        for _ in open_video(source, **options):
            pass
    message = str(error.value)
    assert "\n" not in message and len(message) < 400, message
    return message


@pytest.mark.parametrize("suffix", CODECS)
def test_video_files(tmp_path, suffix):
    frames = _frames(12)
    video = open_video(_write_video(tmp_path / f"clip.{suffix}", frames))
    assert (video.name, video.size, video.fps, video.length) == ("clip", (32, 48), 10.0, 12)
    decoded = list(video)
    assert len(decoded) == 12 and decoded[0].dtype == np.uint8 and decoded[0].flags.c_contiguous
    assert np.abs(np.stack(decoded) - frames.astype(int)).mean() < 6
    assert np.array_equal(decoded, list(video))  # from the beginning again
    assert [name for name, _ in video.items()] == [f"{i:05d}" for i in range(12)]
    assert list(islice(video.names, 2)) == ["00000", "00001"] and video.frame_name(7) == "00007"


def test_options_override_what_the_file_says(tmp_path):
    video = open_video(str(_write_video(tmp_path / "clip.mp4", _frames(3))), fps=25, name="mine")
    assert (video.fps, video.name) == (25, "mine")
    for fps in (0, -1.0, float("nan")):
        _refused("not a frame rate", _frames(), fps=fps)


def test_sound_that_is_longer_than_the_pictures(tmp_path):
    for suffix in ("mp4", "mkv"):
        assert len(list(open_video(_write_video(tmp_path / f"clip.{suffix}", _frames(12), sound=True)))) == 12


def test_rotated_video_is_turned_upright(tmp_path):
    frames = _frames(3)
    path = _write_video(tmp_path / "clip.mp4", frames)
    content = path.read_bytes()
    upright = b"".join(n.to_bytes(4, "big", signed=True) for n in (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30))
    start = content.index(b"tkhd")
    at = content.index(upright, start)
    for numbers, turns in (((0, 65536, 0, -65536, 0, 0), 3), ((-65536, 0, 0, 0, -65536, 0), 2),
                           ((0, -65536, 0, 65536, 0, 0), 1)):
        matrix = b"".join(n.to_bytes(4, "big", signed=True) for n in (*numbers, 0, 0, 1 << 30))
        path.write_bytes(content[:at] + matrix + content[at + 36 :])
        video = open_video(path)
        assert video.size == ((48, 32) if turns % 2 else (32, 48))
        # a player turns clockwise by the matrix (0 1; -1 0), np.rot90 counts the other way: three quarters
        assert np.abs(next(iter(video)) - np.rot90(frames[0].astype(int), turns)).mean() < 6


def test_folder_in_natural_order(tmp_path):
    frames = _frames(3)
    folder = _write_folder(tmp_path / "clip", frames, ["f2.png", "f10.png", "f100.png"])
    (folder / "notes.txt").write_text("")
    (folder / ".hidden.png").write_text("")
    video = open_video(folder)
    assert (video.name, video.size, video.fps, video.length) == ("clip", (32, 48), 24.0, 3)
    assert list(video.names) == ["f2", "f10", "f100"] and video.frame_name(1) == "f10"
    assert np.array_equal(np.stack(list(video)), frames)
    assert np.array_equal(np.stack(list(open_video(str(folder / "f*0.png")))), frames[1:])
    assert open_video(tmp_path / "*" / "*.png").name == "clip"


def test_frames_of_any_mode_become_rgb(tmp_path):
    colours = _frames(1)[0]
    grey = colours[..., 1]
    alpha = np.dstack([colours, np.full(grey.shape, 7, np.uint8)])
    for name, saved, expected in (
        ("grey", Image.fromarray(grey), np.dstack([grey] * 3)),
        ("alpha", Image.fromarray(alpha), colours),
        ("deep", Image.fromarray(grey.astype(np.uint16) * 256), np.dstack([grey] * 3)),
        ("indexed", Image.fromarray(colours).quantize(16), None),
    ):
        saved.save(tmp_path / f"{name}.png")
        read = read_image(tmp_path / f"{name}.png")
        assert read.shape == (32, 48, 3) and read.dtype == np.uint8
        assert expected is None or np.array_equal(read, expected)


def test_a_photograph_on_its_side_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for i in range(2):
        Image.fromarray(_frames(2)[i]).save(tmp_path / f"{i}.jpg", exif=exif, quality=95, subsampling=0)
    video = open_video(tmp_path)
    assert video.size == (48, 32)
    assert np.abs(next(iter(video)) - np.rot90(_frames(1)[0].astype(int), 3)).max() < 12


def test_arrays():
    frames = _frames()
    video = open_video(frames, name="mine")
    assert (video.name, video.size, video.fps, video.length) == ("mine", (32, 48), 24.0, 5)
    assert np.array_equal(list(video), frames) and np.array_equal(list(video), frames)
    assert np.array_equal(list(open_video(frames / 255.0)), frames)
    assert np.array_equal(list(open_video(jnp.asarray(frames / np.float32(255)))), frames)
    assert np.array_equal(list(open_video(list(frames))), frames)
    assert np.array_equal(list(open_video(frames[..., :1])), frames[..., [0, 0, 0]])
    assert np.array_equal(list(open_video([f[..., 0] for f in frames])), frames[..., [0, 0, 0]])
    assert open_video(list(frames)).length == 5


def test_iterators_are_read_once_and_lose_no_frame():
    frames = _frames()
    for minimum in (1, 2, 5):
        asked = []
        video = open_video((asked.append(i) or f for i, f in enumerate(frames)), minimum_frames=minimum)
        assert asked == list(range(minimum))  # a camera is not asked for more than was needed
        assert (video.size, video.length) == ((32, 48), None)
        assert np.array_equal(list(video), frames)
        with pytest.raises(InputError, match="can be read once"):
            list(video)


@pytest.mark.parametrize("suffix", ["mp4", "folder", "array", "iterator"])
def test_one_frame_has_no_motion(tmp_path, suffix):
    frames = _frames(1)
    if suffix == "mp4":
        source = _write_video(tmp_path / "clip.mp4", frames)
    elif suffix == "folder":
        source = _write_folder(tmp_path / "clip", frames)
    else:
        source = frames if suffix == "array" else iter(frames)
    with pytest.raises(InputError, match="one frame has no motion: .* has 1 frame, at least 2 are needed"):
        open_video(source, minimum_frames=2)
    assert len(list(open_video(source if suffix != "iterator" else iter(frames)))) == 1


def test_things_that_are_not_videos(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "outer" / "inner").mkdir(parents=True)
    for name in ("text.txt", "text.mp4"):
        (tmp_path / name).write_text("hello world\n" * 50)
    (tmp_path / "nothing.mp4").write_text("")
    Image.fromarray(_frames(1)[0]).save(tmp_path / "one.png")
    Image.fromarray(_frames(1)[0]).save(tmp_path / "wrong_suffix.mp4", format="PNG")
    for name, match in (("none.mp4", "there is no video or folder"), ("text.txt", "is text, not a video"),
                        ("text.mp4", "not a video"), ("nothing.mp4", "is empty"), ("one.png", "is one image"),
                        ("wrong_suffix.mp4", "is one image"), ("empty", "no jpg or png frames in the folder"),
                        ("outer", r"only folders \(inner\): give one of them"), ("*.jpg", "matches no jpg or png")):
        assert name in _refused(match, tmp_path / name)
    _write_video(tmp_path / "empty" / "a.mp4", _frames(2))
    _refused(r"only video files \(a.mp4\)", tmp_path / "empty")


def test_sound_is_not_a_video(tmp_path):
    import av

    with av.open(str(tmp_path / "song.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame(format="s16", layout="mono", samples=800)
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    _refused("has no pictures", tmp_path / "song.wav")


def test_arrays_that_are_not_videos():
    frames = _frames()
    _refused("shape .32, 48, 3., not", frames[0])
    _refused("holds no frames", frames[:0])
    _refused("holds no frames", iter([]))
    _refused("of type int64: give uint8", frames.astype(np.int64))
    _refused("values from 0 to 255", iter([np.linspace(0, 255, 48 * 3, dtype=np.float32).reshape(1, 48, 3)]))
    _refused("values from nan", np.full((2, 4, 4, 3), np.nan))
    _refused("shape .32, 48, 2., not", [f[..., :2] for f in frames])
    assert "frame 00001 of cam is 31x31 but the first is 48x32" in _refused(
        "all frames of a video must have one size", iter([frames[0], frames[0, :31, :31]]), name="cam")


def test_frames_of_mixed_size_are_refused_at_once(tmp_path):
    folder = _write_folder(tmp_path / "clip", [_frames(1)[0], _frames(1, 16, 16)[0]])
    with pytest.raises(InputError, match="00001.png is 16x16 but 00000.png is 48x32"):
        open_video(folder)


def test_two_files_for_one_frame(tmp_path):
    folder = _write_folder(tmp_path / "clip", _frames(2), ["0.png", "0.jpg"])
    _refused("have the same name: give a pattern", folder)
    assert len(list(open_video(folder / "*.jpg"))) == 1


def test_truncated_images_are_not_decoded_in_part(tmp_path):
    folder = _write_folder(tmp_path / "clip", _frames(3, 64, 64), ["0.jpg", "1.jpg", "2.jpg"])
    content = (folder / "1.jpg").read_bytes()
    (folder / "1.jpg").write_bytes(content[: int(0.8 * len(content))])
    video = open_video(folder)
    with pytest.raises(InputError, match="1.jpg cannot be read .*truncated"):
        list(video)
    (folder / "0.jpg").write_bytes(b"")
    assert "0.jpg" in _refused("cannot be read .not an image", folder)


@pytest.mark.parametrize("suffix", CODECS)
@pytest.mark.parametrize("kept", [0.4, 0.9])
def test_a_file_that_was_cut_is_not_passed_over_in_silence(tmp_path, suffix, kept):
    noise = np.random.default_rng(0).integers(0, 256, (40, 48, 64, 3), dtype=np.uint8)
    path = _write_video(tmp_path / f"clip.{suffix}", noise)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    assert str(path) in _refused("cut short", path)


def test_memory_does_not_grow_with_the_video(tmp_path):
    _write_video(tmp_path / "clip.mp4", _frames(5).repeat(60, 0))
    tracemalloc.start()
    assert sum(1 for _ in open_video(tmp_path / "clip.mp4")) == 300
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * 32 * 48 * 3 + 500_000  # all frames would be 1.4 MB


def test_an_unfinished_reading_closes_the_file(tmp_path):
    path = _write_video(tmp_path / "clip.mp4", _frames(30))
    for _ in range(30):
        next(iter(open_video(path)))
    assert len(list(Path("/proc/self/fd").iterdir())) < 200


def test_import_needs_neither_decoder_nor_opencv():
    code = ("import sys; sys.modules['av'] = sys.modules['cv2'] = None; import jaxvos.data; "
            "print(jaxvos.data.open_video.__name__)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "open_video"


@pytest.mark.data
@pytest.mark.parametrize(("name", "size", "length"),
                         [("video/bikes.mp4", (272, 640), 250), ("video/tree.avi", (240, 320), 68),
                          ("multi_object/schoolgirls.mp4", (240, 432), 80)])
def test_real_videos(data_dir, name, size, length):
    video = open_video(data_dir / name, minimum_frames=2)
    assert (video.size, video.length) == (size, length)
    assert sum(1 for _ in video) == length
    assert 2 < video.fps < 31  # of tree.avi's 444 pictures 376 are only repeated: 2.3 frames per second

@pytest.mark.data
def test_a_real_folder(data_dir):
    video = open_video(data_dir / "davis2016/JPEGImages/256p/bear", minimum_frames=2)
    assert video.name == "bear" and video.length == 82 and next(video.names) == "00000"
    assert next(iter(video)).shape == (*video.size, 3)
