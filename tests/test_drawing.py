"""Pictures: what is drawn, and that files appear whole or not at all."""

import av
import numpy as np
import pytest
from PIL import Image

from jaxvos.drawing import VideoWriter, contact_sheet, evenly_spaced, overlay, plot_curves, write_image
from jaxvos.errors import InputError


def _picture(height=40, width=60, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _smooth_frames(count, height, width):
    y, x = np.mgrid[:height, :width]
    return [np.stack([x * 2 + 3 * t, y * 2, 0 * x + 10 * t], axis=-1).clip(0, 255).astype(np.uint8)
            for t in range(count)]


def test_overlay_leaves_the_background_and_tints_objects():
    image, mask = _picture(), np.zeros((40, 60), np.uint8)
    mask[10:20, 10:30], mask[18:30, 25:50] = 1, 2
    out = overlay(image, mask, alpha=0.5)
    np.testing.assert_array_equal(out[mask == 0], image[mask == 0])
    assert (out[mask > 0] != image[mask > 0]).any(axis=-1).mean() > 0.95
    np.testing.assert_array_equal(out[10, 10], [128, 0, 0])  # contour: the full colour of object 1
    np.testing.assert_array_equal(out[14, 14], np.round(image[14, 14] / 2 + np.array([64, 0, 0])))
    np.testing.assert_array_equal(overlay(image, mask, alpha=0.0)[14, 14], image[14, 14])


def test_overlay_of_nothing_is_the_image_and_borders_of_the_frame_are_no_contour():
    image = _picture()
    np.testing.assert_array_equal(overlay(image, np.zeros((40, 60), np.uint8)), image)
    np.testing.assert_array_equal(overlay(image, np.ones((40, 60), np.uint8), alpha=0.0), image)


@pytest.mark.parametrize("labels", [None, ["one", "a label far too long for its cell", "3", "4", "5"]])
def test_contact_sheet_is_an_even_grid(labels):
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (9, 9, 9), (200, 200, 0)]
    images = [np.full((30, 40, 3), colour, np.uint8) for colour in colours]
    sheet = contact_sheet(images, columns=3, width=304, gap=4, labels=labels)
    cell, tall = 96, 72
    step = (sheet.shape[0] - 4) // 2
    assert sheet.shape == (4 + 2 * step, 304, 3)
    assert step == tall + 4 if labels is None else step > tall + 4
    for index, colour in enumerate(colours):
        left, top = 4 + index % 3 * (cell + 4), 4 + index // 3 * step
        np.testing.assert_array_equal(sheet[top + 2 : top + tall - 2, left + 2 : left + cell - 2],
                                      np.broadcast_to(np.uint8(colour), (tall - 4, cell - 4, 3)))
    np.testing.assert_array_equal(sheet[:4], 255)


@pytest.mark.parametrize(("images", "options"), [(0, {}), (2, {"labels": ["one"]}), (2, {"width": 5})])
def test_contact_sheet_refuses(images, options):
    with pytest.raises(InputError):
        contact_sheet([_picture()] * images, columns=2, **options)


@pytest.mark.parametrize(("length", "count", "expected"), [(5, 3, [0, 2, 4]), (2, 5, [0, 1]), (9, 1, [4]), (0, 3, []),
                                                           (0, 1, []), (1, 4, [0])])
def test_evenly_spaced(length, count, expected):
    assert evenly_spaced(length, count) == expected


@pytest.mark.parametrize(("height", "width"), [(48, 64), (47, 63)])
def test_video_round_trip(tmp_path, height, width):
    path, frames = tmp_path / "folder" / "out.mp4", _smooth_frames(7, height, width)
    with VideoWriter(path, fps=12.5) as video:
        for frame in frames:
            video.write(frame)
        assert not path.exists()
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert float(stream.average_rate) == 12.5 and stream.codec_context.pix_fmt == "yuv420p"
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(decoded) == 7 and decoded[0].shape == (height + height % 2, width + width % 2, 3)
    for before, after in zip(frames, decoded, strict=True):
        assert np.abs(after[:height, :width].astype(int) - before).mean() < 4
    assert [file.name for file in path.parent.iterdir()] == ["out.mp4"]


@pytest.mark.parametrize("error", [RuntimeError("mine"), FileNotFoundError("the next frame")])
def test_video_after_an_error_there_is_no_file(tmp_path, error):
    with pytest.raises(type(error)) as caught:
        with VideoWriter(tmp_path / "out.mp4") as video:
            video.write(_picture())
            raise error
    assert caught.value is error
    assert not list(tmp_path.iterdir())


def test_video_replaces_an_old_file_only_when_it_succeeds(tmp_path):
    path = tmp_path / "out.mp4"
    path.write_bytes(b"old")
    with pytest.raises(InputError, match="no frame"):
        with VideoWriter(path):
            pass
    assert path.read_bytes() == b"old"
    with VideoWriter(path) as video:
        video.write(_picture())
    assert path.stat().st_size > 100 and len(list(tmp_path.iterdir())) == 1


def test_video_refuses(tmp_path):
    with pytest.raises(InputError, match="48"):
        with VideoWriter(tmp_path / "out.mp4") as video:
            video.write(_picture(48, 64))
            video.write(_picture(40, 64))
    with pytest.raises(InputError, match=r"\.mp4"):
        with VideoWriter(tmp_path / "out.nonsense"):
            pass
    with pytest.raises(InputError, match="frames per second"):
        VideoWriter(tmp_path / "out.mp4", fps=0)
    assert not list(tmp_path.iterdir())


def test_write_image(tmp_path):
    image = _picture()
    write_image(tmp_path / "a.png", image)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), image)
    with pytest.raises(InputError, match="suffix"):
        write_image(tmp_path / "a.nonsense", image)
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_plot_curves(tmp_path):
    path = tmp_path / "curves.png"
    curves = {"loss": [(step, 10.0 ** (2 - step / 10)) for step in range(60)], "j": [(0, 0.2), (10, float("nan"))],
              "none yet": [], "zero": [(0, 0.0), (1, np.float32(1000.0))]}
    plot_curves(path, curves, title="a run")
    with Image.open(path) as image:
        assert image.format == "PNG" and image.size[0] > 300
        assert np.asarray(image.convert("L")).std() > 1
    with pytest.raises(InputError):
        plot_curves(tmp_path / "no.png", {}, title="a run")
    assert len(list(tmp_path.iterdir())) == 1


def test_plot_curves_of_several_runs(tmp_path):
    def plot(name, panels):
        plot_curves(tmp_path / name, panels, title="runs")
        return np.asarray(Image.open(tmp_path / name).convert("RGB")).astype(int)

    loss = {f"{'long-' * 12}{i}": [(step, np.exp(-step / (5 + i))) for step in range(40)] for i in range(12)}
    loss["_begins$oddly$"] = []
    everything = plot("all.png", {"loss": loss, "j": {"another": [(0, 0.5), (10, float("nan"))]}})
    few = plot("few.png", {"loss": dict(list(loss.items())[:2]), "j": {"another": [(0, 0.5)]}})
    assert everything.shape[0] > few.shape[0] > plot("one.png", {"loss": [(0, 1.0)], "j": [(0, 1.0)]}).shape[0]
    saturated = np.unique(few[np.ptp(few, axis=-1) > 150], axis=0)
    for colour in ([31, 119, 180], [255, 127, 14]):  # C0 and C1; C2 is less saturated
        assert (np.abs(few - colour).sum(-1) == 0).any(), saturated
    for edge in (everything[:, :2], everything[:, -2:], everything[-2:]):  # no name is cut off
        assert (edge == 255).all()
