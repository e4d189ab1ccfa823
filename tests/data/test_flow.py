"""Flow comes from DIS, from files or from a function, through one interface, one frame ahead."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxvos.data import dis_flow, flow_from_folder, flow_provider, open_video, read_image, with_flow, write_flow
from jaxvos.errors import InputError


def _moving_square(count=4, speed=3) -> np.ndarray:
    def blobs(seed, height, width):
        noise = np.random.default_rng(seed).integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
        return np.array(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))

    frames = blobs(0, 128, 160)[None].repeat(count, 0)
    texture = blobs(1, 40, 40)
    for t in range(count):
        frames[t, 50:90, 60 + speed * t : 100 + speed * t] = texture
    return frames


def _level(image, next_image):
    """A flow that tells which two frames it is from."""
    flow = np.stack([image[..., 0], next_image[..., 0]], axis=-1)
    return flow.astype(np.float64)


def _numbered(count) -> np.ndarray:
    return np.arange(1, count + 1, dtype=np.uint8)[:, None, None, None] * np.ones((4, 5, 3), np.uint8)


def test_dis_sees_the_square_move():
    first, second = _moving_square(2)
    for preset in ("ultrafast", "fast", "medium"):
        flow = dis_flow(preset=preset)(first, second, name="00000")
        assert flow.shape == (128, 160, 2) and flow.dtype == np.float32
        inside, outside = flow[60:80, 70:90].reshape(-1, 2), flow[:20, :20].reshape(-1, 2)
        assert np.abs(np.median(inside, axis=0) - [3, 0]).max() < (0.5 if preset == "medium" else 1.0), preset
        assert np.abs(np.median(outside, axis=0)).max() < 0.5
    assert np.array_equal(flow, dis_flow()(first, second, name="x"))


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (12, 100), (100, 8), (8, 200), (24, 300), (31, 31), (33, 45)])
def test_dis_takes_frames_of_any_size(size):
    """Without padding OpenCV 5.0 raises for the first two of these and crashes the process at the next."""
    frames = np.random.default_rng(0).integers(0, 255, (2, *size, 3), dtype=np.uint8)
    for preset in ("ultrafast", "fast", "medium"):
        flow = dis_flow(preset=preset)(*frames, name="x")
        assert flow.shape == (*size, 2) and np.isfinite(flow).all()


def test_folder(tmp_path):
    flow = np.random.default_rng(0).normal(size=(4, 5, 2)).astype(np.float32)
    write_flow(tmp_path / "00000.flo", flow, np.arange(20).reshape(4, 5) > 0)
    write_flow(tmp_path / "f1.png", flow)
    write_flow(tmp_path / "00002.flo", flow[:2])
    image = np.zeros((4, 5, 3), np.uint8)
    provider = flow_from_folder(tmp_path)
    read = provider(image, image, name="00000")
    assert not read[0, 0].any() and np.array_equal(read.reshape(-1, 2)[1:], flow.reshape(-1, 2)[1:])
    assert np.abs(provider(image, image, name="f1") - flow).max() <= 1 / 128
    for name, match in (("00001", "no flow for frame 00001: there is no 00001.flo, .pfm or .png"),
                        ("00002", "00002.flo is 5x2 but its frame is 5x4")):
        with pytest.raises(InputError, match=match):
            provider(image, image, name=name)


def test_provider_of_anything(tmp_path):
    image, next_image = _numbered(2)
    write_flow(tmp_path / "00000.flo", np.ones((4, 5, 2), np.float32))
    assert (flow_provider(tmp_path)(image, next_image, name="00000") == 1).all()
    assert (flow_provider(str(tmp_path))(image, next_image, name="00000") == 1).all()
    assert flow_provider("dis")(*_moving_square(2), name="x").shape == (128, 160, 2)
    flow = flow_provider(_level)(image, next_image, name="x")
    assert flow.dtype == np.float32 and (flow == [1, 2]).all()
    assert (flow_provider(lambda a, b: jnp.ones((4, 5, 2)))(image, next_image, name="x") == 1).all()
    assert (flow_provider(lambda a, b, name: np.full((4, 5, 2), int(name)))(image, next_image, name="7") == 7).all()
    assert (flow_provider(lambda a, b, **rest: np.full((4, 5, 2), len(rest)))(image, next_image, name="7") == 1).all()


def test_what_is_no_provider(tmp_path):
    image, next_image = _numbered(2)
    for call, match in ((lambda: flow_provider("pwc"), "'pwc' is neither 'dis' nor a folder"),
                        (lambda: flow_from_folder(tmp_path / "none"), "no folder of flow"),
                        (lambda: flow_from_folder(tmp_path), "no .flo, .pfm or .png flow files"),
                        (lambda: flow_provider(lambda a, b: a)(image, next_image, name="00003"),
                         r"shape \(4, 5, 3\) for frame 00003"),
                        (lambda: flow_provider(lambda a, b: np.full((4, 5, 2), np.nan))(image, next_image, name="9"),
                         "not finite for frame 9")):
        with pytest.raises(InputError, match=match) as error:
            call()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize(("last_frame", "expected"), [("reuse", [[1, 2], [2, 3], [3, 4], [3, 4]]),
                                                      ("backward", [[1, 2], [2, 3], [3, 4], [-4, -3]]),
                                                      ("skip", [[1, 2], [2, 3], [3, 4]])])
def test_every_frame_has_flow(last_frame, expected, live):
    frames = _numbered(4)
    video = open_video(iter(frames) if live else frames)
    found = list(with_flow(video, flow_provider(_level), last_frame=last_frame))
    assert [f.flow[0, 0].tolist() for f in found] == expected
    assert [f.name for f in found] == [f"{i:05d}" for i in range(len(expected))]
    assert np.array_equal(np.stack([f.image for f in found]), frames[: len(expected)])
    assert all(f.seconds >= 0 for f in found) and (found[-1].seconds == 0) == (last_frame == "reuse")


def test_frames_come_one_ahead():
    asked = []
    video = open_video(asked.append(i) or frame for i, frame in enumerate(_numbered(6)))
    stream = with_flow(video, flow_provider(_level))
    for i in range(3):
        next(stream)
        assert asked == list(range(i + 2))


def test_one_frame_has_no_motion():
    for last_frame in ("reuse", "backward", "skip"):
        with pytest.raises(InputError, match="one frame has no motion"):
            list(with_flow(open_video(_numbered(1)), flow_provider(_level), last_frame=last_frame))


def test_a_folder_serves_all_but_the_last_frame(tmp_path):
    for i in range(2):
        write_flow(tmp_path / f"{i:05d}.flo", np.full((4, 5, 2), i, np.float32))
    provider = flow_from_folder(tmp_path)
    assert [f.flow[0, 0, 0] for f in with_flow(open_video(_numbered(3)), provider)] == [0, 1, 1]
    with pytest.raises(InputError, match="no flow for frame 00002"):
        list(with_flow(open_video(_numbered(3)), provider, last_frame="backward"))


@pytest.mark.data
@pytest.mark.parametrize(("name", "window"), [("Dimetrodon", (60, 80)), ("Grove2", (100, 200)),
                                              ("RubberWhale", (40, 150)), ("Venus", (70, 20))])
def test_golden_dis(golden_dir, data_dir, name, window):
    """Equal to half a step of the stored values on the same grey values; close to the truth on the colours."""
    import cv2

    golden = np.load(golden_dir / "flow/crops.npz")
    expected, truth = (golden[f"{name}_{kind}_q"].astype(np.float64) / 256 for kind in ("dis", "gt"))
    rows, columns = (slice(start, start + length) for start, length in zip(window, expected.shape[:2], strict=True))
    pair = [data_dir / "flow" / name / f"frame{i}.png" for i in (10, 11)]
    grey = [np.repeat(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)[..., None], 3, axis=-1) for path in pair]
    found = dis_flow()(*grey, name="frame10")[rows, columns]
    error = np.linalg.norm(found - expected, axis=-1)
    if cv2.__version__.startswith("5.0."):  # the version that the golden values are from
        assert error.max() <= np.sqrt(2) / 512 + 1e-6
    assert error.mean() < 0.1
    in_colour = dis_flow()(*map(read_image, pair), name="frame10")[rows, columns]
    valid = golden[f"{name}_valid"]
    epe, golden_epe = (np.linalg.norm(f - truth, axis=-1)[valid].mean() for f in (in_colour, expected))
    assert abs(epe - golden_epe) < 0.1
