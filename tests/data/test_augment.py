"""One geometry for all that belongs to a clip, tested by what must still fit together afterwards."""

import cv2
import numpy as np
import pytest

from jaxvos.data import AffineRange, Augmentation, ClipSample, ColourRange, augment_clip, static_clip
from jaxvos.errors import InputError

HEIGHT, WIDTH, SIZE = 72, 96, (64, 64)
WILD = AffineRange(rotation=25.0, scale=(0.8, 1.3), shear=10.0, shift=0.1)
GEOMETRY = Augmentation(flip=0.5, vertical_flip=0.5, clip=WILD, frame=WILD)


def _scene(shift=(0.0, 0.0)):
    """A smooth picture and an object in it, moved; `shift` is (dx, dy)."""
    x, y = np.meshgrid(np.arange(WIDTH) - shift[0], np.arange(HEIGHT) - shift[1])
    waves = [np.sin(x / 7 + y / 11), np.sin(x / 9 - y / 6 + 1), np.cos(x / 12) * np.sin(y / 8)]
    image = np.rint(127.5 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)
    return image, (((x - 50) / 14) ** 2 + ((y - 34) / 10) ** 2 < 1).astype(np.uint8)


def _moving_clip():
    """Three frames moved by (3, -2) each, and their flow."""
    frames = [_scene((3.0 * t, -2.0 * t)) for t in range(3)]
    flow = np.broadcast_to(np.float32([3, -2]), (3, HEIGHT, WIDTH, 2))
    return ClipSample(np.stack([image for image, _ in frames]), np.stack([mask for _, mask in frames]), flow)


def _tight(mask):
    rows, columns = np.nonzero(mask)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def _seen_next(array, flow):
    """What each pixel becomes in the next frame, -1 where it has left it."""
    x, y = np.meshgrid(np.arange(flow.shape[1], dtype=np.float32), np.arange(flow.shape[0], dtype=np.float32))
    return cv2.remap(array, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR, borderValue=(-1, -1, -1))


def _check_flow(clip):
    """Frame t + 1, looked up along the flow, is frame t; and so are the masks."""
    for t in range(len(clip.images) - 1):
        found = _seen_next(clip.images[t + 1].astype(np.float32), clip.flow[t])
        inside = (found >= 0).all(-1) & (np.abs(clip.flow[t]).max(-1) < 40)
        assert inside.mean() > 0.4
        # beyond the border of the source nothing of the second frame is known to be that of the first
        off = np.abs(found - clip.images[t]).max(-1)
        assert np.median(off[inside]) < 3 and np.mean(off[inside] < 10) > 0.8
        mask = _seen_next(clip.masks[t + 1].astype(np.float32), clip.flow[t]) > 0.5
        assert np.mean(mask[inside] == (clip.masks[t][inside] > 0)) > 0.97


def test_nothing_asked_for_changes_nothing():
    clip = _moving_clip()._replace(boxes=np.array([[[3.0, 4.0, 20.0, 9.0]]] * 3))
    same = augment_clip(0, clip, Augmentation(), size=(HEIGHT, WIDTH))
    for before, after in zip(clip, same, strict=True):
        np.testing.assert_allclose(before, after, atol=1e-5)


@pytest.mark.parametrize("option", ["flip", "vertical_flip"])
def test_a_flip_mirrors_everything_and_two_flips_are_none(option):
    clip = _moving_clip()._replace(boxes=np.array([[[3.0, 4.0, 20.0, 9.0]]] * 3))
    config = Augmentation(**{option: 1.0})
    once = augment_clip(0, clip, config, size=(HEIGHT, WIDTH))
    axis = 2 if option == "flip" else 1
    np.testing.assert_array_equal(once.images, np.flip(clip.images, axis))
    np.testing.assert_array_equal(once.masks, np.flip(clip.masks, axis))
    np.testing.assert_allclose(once.flow[1, 30, 30], [-3, -2] if option == "flip" else [3, 2], atol=1e-5)
    np.testing.assert_allclose(once.boxes[0, 0], [76, 4, 93, 9] if option == "flip" else [3, 63, 20, 68])
    twice = augment_clip(1, once, config, size=(HEIGHT, WIDTH))
    for before, after in zip(clip, twice, strict=True):
        np.testing.assert_allclose(before, after, atol=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_flow_and_masks_follow_the_pictures(seed):
    crop = (0.6, 1.0) if seed % 2 else None
    _check_flow(augment_clip(seed, _moving_clip(), GEOMETRY, size=SIZE, crop=crop))


def test_a_scaled_turned_translation_is_the_scaled_turned_vector():
    clip = augment_clip(0, _moving_clip(), Augmentation(), size=(36, 144))
    np.testing.assert_allclose(clip.flow[0, 20, 70], [3 * 1.5, -2 / 2], atol=1e-4)
    turned = augment_clip(3, _moving_clip(), Augmentation(clip=AffineRange(rotation=180.0)), size=(HEIGHT, WIDTH))
    middle = turned.flow[:, HEIGHT // 2, WIDTH // 2]
    np.testing.assert_allclose(np.hypot(*middle.T), np.hypot(3, 2), rtol=1e-3)
    assert np.abs(middle[0] - [3, -2]).max() > 0.5


@pytest.mark.parametrize("seed", range(4))
def test_boxes_stay_tight_unless_turned(seed):
    clip = _moving_clip()
    boxes = np.array([[_tight(mask)] for mask in clip.masks], np.float64)
    upright = Augmentation(flip=0.5, vertical_flip=0.5, clip=AffineRange(scale=(0.8, 1.3), shift=0.1))
    moved = augment_clip(seed, clip._replace(boxes=boxes), upright, size=SIZE, crop=(0.7, 1.0))
    for mask, (box,) in zip(moved.masks, moved.boxes, strict=True):
        np.testing.assert_allclose(box, _tight(mask), atol=1.6)
    turned = augment_clip(seed, clip._replace(boxes=boxes), GEOMETRY, size=SIZE)
    for mask, (box,) in zip(turned.masks, turned.boxes, strict=True):
        tight = np.array(_tight(mask))
        assert (box[:2] <= tight[:2] + 1).all() and (box[2:] >= tight[2:] - 1).all()
        assert (box >= 0).all() and (box <= 64).all()


def test_a_box_that_leaves_the_frame_has_no_area():
    clip = _moving_clip()._replace(masks=None, boxes=np.full((3, 1, 4), [0.0, 0.0, 2.0, 2.0]))
    left, top, right, bottom = augment_clip(0, clip, Augmentation(), size=SIZE, crop=(0.4, 0.4)).boxes[0, 0]
    assert (right - left) * (bottom - top) == 0
    twice = Augmentation(clip=AffineRange(scale=(2.0, 2.0)))
    whole = clip._replace(boxes=np.full((3, 1, 4), [0.0, 0.0, WIDTH, HEIGHT / 2]))
    np.testing.assert_allclose(augment_clip(0, whole, twice, size=SIZE).boxes[0, 0], [0, 0, 64, 32])


def test_borders_reflect_images_and_are_background_without_motion():
    clip = _moving_clip()
    clip = clip._replace(images=np.full_like(clip.images, 200), masks=np.ones_like(clip.masks))
    half = augment_clip(0, clip, Augmentation(clip=AffineRange(scale=(0.5, 0.5))), size=(HEIGHT, WIDTH))
    assert (half.images == 200).all()
    assert half.masks[0, 0, 0] == 0 and half.masks[0, HEIGHT // 2, WIDTH // 2] == 1
    assert np.abs(half.flow[0, 2, 2]).max() == 0
    np.testing.assert_allclose(half.flow[0, HEIGHT // 2, WIDTH // 2], [1.5, -1], atol=1e-5)


def test_shrinking_averages_images_and_keeps_ids():
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[:, ::2] = 200
    mask = np.where(np.arange(WIDTH) < 48, 3, 255).astype(np.uint8)[None].repeat(HEIGHT, 0)
    small = augment_clip(0, ClipSample(image[None], mask[None]), Augmentation(), size=(18, 24))
    assert np.abs(small.images.astype(int) - 100).max() <= 1 and set(np.unique(small.masks)) == {3, 255}
    turned = augment_clip(0, ClipSample(image[None], mask[None]), GEOMETRY, size=SIZE)
    assert set(np.unique(turned.masks)) <= {0, 3, 255}


def test_a_crop_keeps_its_shape_and_shows_an_object():
    image = np.stack(np.broadcast_arrays(*np.ogrid[:HEIGHT, :WIDTH], 0), -1).astype(np.uint8)  # its own coordinates
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[4:12, 4:12] = 7
    sample, shown = ClipSample(image[None], mask[None]), 0
    for seed in range(20):
        clip = augment_clip(seed, sample, Augmentation(), size=(32, 32), crop=(0.5, 0.6))
        rows, columns = np.ptp(clip.images[0, :, 16, 0].astype(int)), np.ptp(clip.images[0, 16, :, 1].astype(int))
        assert abs(rows - columns) <= 1 and 34 <= rows <= 43  # of 72
        blind = augment_clip(seed, sample._replace(masks=None), Augmentation(), size=(32, 32), crop=(0.5, 0.6))
        shown += bool(blind.images[0, 0, 0, 0] < 12 and blind.images[0, 0, 0, 1] < 12)
        assert (clip.masks == 7).any()
    wide = augment_clip(0, ClipSample(image[None]), Augmentation(), size=(16, 64), crop=(1.0, 1.0)).images[0]
    assert wide[8, 0, 1] <= 1 and wide[8, -1, 1] >= 94 and 20 <= np.ptp(wide[:, 0, 0].astype(int)) <= 24
    assert shown < 15  # left to chance, the object is often cut away


def test_of_crops_that_all_fail_the_best_is_taken():
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[4:12, 4:12] = 7
    sample = ClipSample(np.zeros((1, HEIGHT, WIDTH, 3), np.uint8), mask[None])

    def draw(seed, area):
        clip = augment_clip(seed, sample, Augmentation(), size=(32, 32), crop=(0.5, 0.6), min_area=area)
        return (clip.masks == 7).mean()

    any_will_do, as_much_as_can_be = (np.mean([draw(seed, area) for seed in range(12)]) for area in (0.0, 0.9))
    assert any_will_do < as_much_as_can_be < 0.9


def test_a_static_clip_moves_with_its_flow():
    image, mask = _scene()
    motion = Augmentation(frame=AffineRange(rotation=10.0, scale=(0.9, 1.1), shear=5.0, shift=0.05))
    clip = static_clip(0, image, mask, motion, num_frames=4, size=SIZE)
    assert clip.images.shape == (4, *SIZE, 3) and clip.masks.shape == (4, *SIZE) and clip.flow.shape == (4, *SIZE, 2)
    assert all(np.abs(clip.flow[t]).max() > 0.5 and (clip.images[t] != clip.images[0]).any() for t in (1, 2, 3))
    _check_flow(clip)
    still = static_clip(0, image, None, Augmentation(), num_frames=2, size=SIZE)
    assert still.masks is None and not still.flow.any() and (still.images[0] == still.images[1]).all()


GEOMETRIC = [{"rotation": 20.0}, {"scale": (0.7, 0.9)}, {"shear": 15.0}, {"shift": 0.2}]
COLOURS = [{"brightness": 0.3}, {"contrast": 0.3}, {"saturation": 0.5}, {"hue": 0.2}, {"grey": 1.0}]


@pytest.mark.parametrize("options", GEOMETRIC + COLOURS, ids=lambda options: next(iter(options)))
def test_each_range_acts_alike_on_the_clip_and_apart_on_its_frames(options):
    image, mask = _scene()
    sample = ClipSample(np.stack([image] * 2), np.stack([mask] * 2))
    kind, suffix = (AffineRange, "") if options in GEOMETRIC else (ColourRange, "_colour")
    whole = augment_clip(1, sample, Augmentation(**{f"clip{suffix}": kind(**options)}), size=(HEIGHT, WIDTH))
    assert (whole.images != sample.images).any() and (whole.images[0] == whole.images[1]).all()
    assert ((whole.masks != sample.masks).any()) == (kind is AffineRange)
    each = augment_clip(1, sample, Augmentation(**{f"frame{suffix}": kind(**options)}), size=(HEIGHT, WIDTH))
    assert (each.images != sample.images).any()
    assert (each.images[0] != each.images[1]).any() or "grey" in options


def test_colours_mean_what_they_are_called():
    ramp = np.arange(64, 192, dtype=np.uint8)
    grey = ClipSample(np.broadcast_to(ramp[None, None, :, None], (1, 4, 128, 3)))
    colour = ClipSample(np.broadcast_to(np.uint8([160, 100, 90]), (1, 4, 4, 3)))

    def recolour(sample, seed=0, **limits):
        whole = Augmentation(clip_colour=ColourRange(**limits))
        return augment_clip(seed, sample, whole, size=sample.images.shape[1:3]).images[0, 0].astype(float)

    for limits in ({"saturation": 0.9}, {"hue": 0.5}, {"grey": 1.0}):  # leave grey as it is
        np.testing.assert_allclose(recolour(grey, **limits), grey.images[0, 0], atol=1)
    brighter = recolour(grey, brightness=0.3)[:, 0] / ramp
    assert np.ptp(brighter) < 0.02 and abs(brighter.mean() - 1) > 0.02
    steeper = (recolour(grey, contrast=0.3)[:, 0] - 127.5) / (ramp - 127.5)
    assert np.median(steeper) == pytest.approx(steeper[0], abs=0.02) and abs(steeper[0] - 1) > 0.02
    luma = np.array([0.299, 0.587, 0.114])
    for limits in ({"saturation": 0.5}, {"hue": 0.1}, {"grey": 1.0}):  # keep the brightness
        assert recolour(colour, **limits)[0] @ luma == pytest.approx(colour.images[0, 0, 0] @ luma, abs=1.5)
    assert np.ptp(recolour(colour, grey=1.0)[0]) == 0


def test_blur_smooths_all_frames_as_often_and_as_much_as_it_is_told():
    noise = ClipSample(np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3), np.uint8))

    def spread(seed, blur, sigma):
        config = Augmentation(blur=blur, blur_sigma=(sigma, sigma))
        return augment_clip(seed, noise, config, size=(32, 32)).images.std((1, 2, 3))

    sharp, soft, softer = spread(0, 0.0, 1.0), spread(0, 1.0, 1.0), spread(0, 1.0, 3.0)
    assert (sharp > 2 * soft).all() and (soft > 2 * softer).all()
    assert 3 < sum(bool((spread(seed, 0.5, 1.0) == sharp).all()) for seed in range(20)) < 17


def test_the_seed_decides():
    clip = _moving_clip()
    one, again, other = (augment_clip(seed, clip, GEOMETRY, size=SIZE).images for seed in (5, 5, 6))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_ranges_that_are_none():
    with pytest.raises(InputError, match="scale"):
        AffineRange(scale=(0.0, 1.0))
    with pytest.raises(InputError, match="blur_sigma"):
        Augmentation(blur_sigma=(2.0, 1.0))
