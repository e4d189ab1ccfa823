"""Synthetic clips: the same from the same seed, exact where they claim to be."""

import dataclasses
import hashlib
import itertools
import subprocess
import sys

import chex
import numpy as np
import pytest

from jaxvos.data._synthetic import (
    SyntheticConfig,
    demo_video,
    mask_edges,
    synthetic_batch,
    synthetic_clip,
    synthetic_clips,
)
from jaxvos.data._synthetic_figures import Part, shift, turn, zoom
from jaxvos.data._synthetic_scenes import Scene, draw_scene, render
from jaxvos.data._synthetic_sprites import Layer
from jaxvos.errors import InputError

SMALL = SyntheticConfig(height=40, width=56)
CLEAN = SyntheticConfig(height=96, width=96, photometric=0.0, noise=0.0, blur=0.0, lights=0.0, motion_blur=0.0,
                        shadows=0.0, flow_noise=0.0)


def _equal(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def _slow_edges(mask):
    """The definition, pixel by pixel."""
    height, width = mask.shape
    kernel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    out = np.zeros_like(mask)
    for row, col in itertools.product(range(height), range(width)):
        across = down = 0.0
        for i, j in itertools.product(range(3), range(3)):
            value = mask[min(max(row + i - 1, 0), height - 1), min(max(col + j - 1, 0), width - 1)]
            across += kernel[i, j] * value
            down += kernel[j, i] * value
        out[row, col] = float(abs(across) + abs(down) > 0)
    return out


def _warp_back(image, flow):
    """Reads `image` at p + flow(p), bilinearly; also which positions lie inside."""
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width] + np.moveaxis(flow[..., ::-1], -1, 0)
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    x, y = x.clip(0, width - 1), y.clip(0, height - 1)
    x0, y0 = np.minimum(x.astype(int), width - 2), np.minimum(y.astype(int), height - 2)
    dx, dy = (x - x0)[..., None], (y - y0)[..., None]
    top = image[y0, x0] * (1 - dx) + image[y0, x0 + 1] * dx
    return top * (1 - dy) + (image[y0 + 1, x0] * (1 - dx) + image[y0 + 1, x0 + 1] * dx) * dy, inside


def test_shapes_one_hot_and_dead_slots():
    for seed in range(8):
        clip = synthetic_clip(seed, dataclasses.replace(SMALL, num_frames=3))
        assert clip.images.shape == (3, 40, 56, 3) and clip.flow.shape == (3, 40, 56, 2)
        assert clip.masks.shape == (3, 40, 56, 4) and clip.edges.shape == (3, 40, 56)
        assert all(a.dtype == np.float32 for a in (clip.images, clip.masks, clip.flow, clip.edges))
        assert 0 <= clip.images.min() and clip.images.max() <= 1 and np.isfinite(clip.flow).all()
        assert set(np.unique(clip.masks)) <= {0.0, 1.0}
        np.testing.assert_array_equal(clip.masks.sum(-1), 1)
        np.testing.assert_array_equal(clip.alive[1:], clip.masks.any((0, 1, 2))[1:])
        assert clip.alive[0]


def test_determined_by_the_seed_and_the_index():
    assert _equal(synthetic_clip((3, 1), SMALL), synthetic_clip((3, 1), SMALL))
    different = [synthetic_clip(seed, SMALL).images for seed in (3, (3, 0), (3, 1), (0, 3), 4)]
    for first, second in itertools.combinations(different, 2):
        assert not np.array_equal(first, second)
    demo = demo_video(3, height=40, width=56, num_frames=2)
    assert not np.array_equal(demo.images, different[0])
    assert _equal(demo, demo_video(3, height=40, width=56, num_frames=2))


def test_a_batch_is_its_clips_and_the_iterator_resumes_anywhere():
    batch = synthetic_batch(7, 2, SMALL, batch_size=3)
    for item in range(3):
        clip = synthetic_clip((7, 2, item), SMALL)
        for name in clip._fields:
            np.testing.assert_array_equal(getattr(batch, name)[item], getattr(clip, name))
    assert batch.valid.all() and batch.valid.shape == (3, 2)
    whole = list(itertools.islice(synthetic_clips(SMALL, seed=7, batch_size=3), 3))
    assert _equal(whole[2], batch)
    assert _equal(next(synthetic_clips(SMALL, seed=7, batch_size=3, start=2)), batch)
    fewer = next(synthetic_clips(SMALL, seed=7, batch_size=2, start=2))
    assert _equal(fewer, tuple(a if a is None else a[:2] for a in batch)) and batch.proposals is None


def test_a_longer_clip_begins_with_the_shorter_one():
    short, long = (synthetic_clip(5, dataclasses.replace(SMALL, num_frames=n, flow_noise=0.0)) for n in (2, 4))
    for name in ("masks", "flow", "edges"):
        np.testing.assert_array_equal(getattr(short, name), getattr(long, name)[:2])
    np.testing.assert_allclose(short.images, long.images[:2], atol=1e-5)


GOLDEN = {  # seed: for few and for many objects, the hash of the ids, and the mean of the images and of the flow
    0: (("7b63d188152b1259", 0.394666, 0.19736), ("3cade183e849e7ca", 0.397400, 0.19523)),
    1: (("1f6b7a07d17765c9", 0.341843, 0.33328), ("79320c77cdf83703", 0.342678, 0.32133)),
    3: (("1e4af7b8f3029ce2", 0.217107, 0.11676), ("ce452fb2d58273c8", 0.198422, 0.21190)),
}  # fmt: skip


@pytest.mark.parametrize("seed", GOLDEN)
def test_the_clips_of_a_seed_stay_what_they_were(seed):
    """Values from before there were lookalikes and `min_objects`: published numbers hang on these clips."""
    full = dataclasses.replace(SMALL, num_objects=6, parallax=1.0, shadows=1.0)
    for config, (ids, image, flow) in zip((SMALL, full), GOLDEN[seed], strict=True):
        clip = synthetic_clip(seed, config)
        assert hashlib.sha256(clip.masks.argmax(-1).astype(np.uint8).tobytes()).hexdigest()[:16] == ids
        assert (clip.images.mean(), np.abs(clip.flow).mean()) == pytest.approx((image, flow), abs=1e-5)


def _figures(seed, config):
    """Looks of the objects by slot: contours and textures, but for the pose."""
    scene = draw_scene(np.random.default_rng(seed), config)
    looks: dict[int, list] = {}
    for layer in scene.layers:
        if layer.slot > 0:
            looks.setdefault(layer.slot, []).append((layer.part.radii, layer.texture))
    return looks, scene


def test_lookalikes_share_their_look_and_not_their_pose():
    config = dataclasses.replace(SMALL, num_objects=4, lookalikes=1.0)
    for seed in range(4):
        looks, scene = _figures(seed, config)
        assert len(looks) >= 2
        for other in looks.values():
            chex.assert_trees_all_equal(other, looks[1])
        poses = {layer.slot: layer.pose(1.0) for layer in scene.layers if layer.slot > 0}
        assert all(not np.allclose(poses[slot], poses[1]) for slot in poses if slot > 1)
    config = dataclasses.replace(config, lookalikes=0.0, min_objects=2)
    for seed in range(4):
        looks, _ = _figures(seed, config)
        assert (looks[1][0][1] != looks[2][0][1]).any()
    assert len(_figures(0, dataclasses.replace(SMALL, num_objects=1, lookalikes=1.0))[0]) == 1


def test_at_least_so_many_objects():
    for fewest in (2, 4):
        counts = {len(_figures(seed, dataclasses.replace(SMALL, num_objects=4, min_objects=fewest))[0])
                  for seed in range(12)}
        assert counts <= set(range(fewest, 5)) and (fewest == 4 or len(counts) > 1)


CHANGES = {"height": 48, "width": 48, "num_frames": 3, "num_objects": 6, "min_objects": 3, "lookalikes": 1.0,
           "min_area": 0.2, "max_area": 0.05, "camera_motion": 0.0, "object_motion": 3.0, "tracking": 1.0, "still": 1.0,
           "parallax": 1.0, "distractors": 0, "camouflage": 1.0, "shadows": 1.0, "lights": 1.0, "photometric": 0.0,
           "noise": 0.2, "blur": 1.0, "motion_blur": 1.0, "flow_source": "dis", "flow_noise": 1.0}


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(SyntheticConfig)])
def test_every_option_changes_the_output(name):
    base = dataclasses.replace(SMALL, flow_noise=0.0, tracking=0.0, parallax=0.0, lights=0.0, blur=0.0,
                               motion_blur=0.0, shadows=0.0, camouflage=0.0, still=0.0)
    changed = dataclasses.replace(base, **{name: CHANGES[name]})
    assert any(not _equal(synthetic_clip(seed, base), synthetic_clip(seed, changed)) for seed in range(3))


def test_flow_options_leave_the_pictures_alone():
    exact, noisy, estimated = (
        synthetic_clip(1, dataclasses.replace(SMALL, **options))
        for options in ({"flow_noise": 0.0}, {"flow_noise": 1.0}, {"flow_noise": 0.0, "flow_source": "dis"}))
    for other in (noisy, estimated):
        np.testing.assert_array_equal(exact.images, other.images)
        np.testing.assert_array_equal(exact.masks, other.masks)
        assert not np.array_equal(exact.flow, other.flow) and other.flow.shape == exact.flow.shape


def _still_layer(radii, pose, *, slot=1):
    texture = np.random.default_rng(2).random((32, 32, 3), np.float32)
    return Layer(slot, Part((0.0, 0.0), 0.0, np.full(64, radii, np.float32)), pose, texture, softness=1.0)


def test_translation_is_exact():
    """Whole-pixel translations move owner and picture exactly, and the flow says so."""
    ground = np.random.default_rng(1).random((64, 64, 3), np.float32)
    near = _still_layer(8.0, lambda t: shift(20.0 + 3.0 * t, 24.0 - 2.0 * t))
    far = _still_layer(9.0, lambda t: shift(24.0 + 1.0 * t, 28.0), slot=2)
    scene = Scene(48, 56, ground, lambda t: shift(-2.0 * t, 1.0 * t), [far, near], 0.0)
    first, second = render(scene, 0.0), render(scene, 1.0)
    for slot, (dx, dy) in {0: (-2, 1), 1: (3, -2), 2: (1, 0)}.items():
        flow = first.flow[first.owner == slot]
        np.testing.assert_allclose(flow, np.broadcast_to(np.float32([dx, dy]), flow.shape), atol=2e-5)
        core = np.zeros_like(first.owner, bool)
        core[6:-6, 6:-6] = (first.owner == slot)[6:-6, 6:-6]
        for axis, amount in itertools.product((0, 1), (-1, 1)):  # away from soft borders
            core &= np.roll(first.owner, amount, axis) == slot
        y, x = np.nonzero(core)
        visible = second.owner[y + dy, x + dx] == slot
        y, x = y[visible], x[visible]
        ring = [second.owner[y + dy + i, x + dx + j] == slot for i, j in ((0, 1), (1, 0), (0, -1), (-1, 0))]
        y, x = (a[np.all(ring, axis=0)] for a in (y, x))
        assert len(y) > 20
        np.testing.assert_allclose(second.image[y + dy, x + dx], first.image[y, x], atol=1e-4)
    assert (first.owner == 1).sum() == pytest.approx(np.pi * 64, rel=0.05)
    assert first.owner[24, 22] == 1 and first.owner[28, 31] == 2  # the nearer one hides the farther one


def test_the_mask_is_half_coverage():
    black = np.zeros((8, 8, 3), np.float32)
    layer = _still_layer(9.3, lambda t: shift(20.2, 19.7))._replace(texture=np.ones((8, 8, 3), np.float32))
    canvas = render(Scene(40, 40, black, lambda t: np.eye(3), [layer], 0.0), 0.0)
    np.testing.assert_array_equal(canvas.owner == 1, canvas.image[..., 0] >= 0.5)
    y, x = np.mgrid[:40, :40]
    np.testing.assert_array_equal(canvas.owner == 1, np.hypot(x - 20.2, y - 19.7) <= 9.3)
    assert ((canvas.image > 0.01) & (canvas.image < 0.99)).any()


def test_flow_of_joints_and_breath_follows_the_parts():
    """A pixel of a swinging, breathing part lands on the same point of that part."""
    angle = np.arange(64) * 2 * np.pi / 64
    part = Part((1.0, 0.5), 0.3, (5 + np.cos(2 * angle)).astype(np.float32), hang=3.0, swing=0.5, rate=0.7, phase=0.2,
                breath=(0.1 * np.cos(3 * angle)).astype(np.float32))

    def pose(time):
        return shift(24 + time, 20.0) @ turn(0.1 * time) @ zoom(1.0 + 0.05 * time)

    texture = np.ones((8, 8, 3), np.float32)
    scene = Scene(48, 48, texture, lambda t: np.eye(3), [Layer(1, part, pose, texture)], 0.0)
    now = render(scene, 2.0)
    y, x = np.nonzero(now.owner == 1)
    places = []
    for time, points in ((2.0, (x, y)), (3.0, (x + now.flow[y, x, 0], y + now.flow[y, x, 1]))):
        local = np.linalg.inv(pose(time) @ part.pose(time)) @ np.stack([*points, np.ones(len(x))])
        bearing = np.arctan2(local[1], local[0])
        limit = np.interp(bearing % (2 * np.pi), np.append(angle, 2 * np.pi), np.append(part.contour(time),
                                                                                      part.contour(time)[0]))
        places.append((bearing, np.hypot(local[0], local[1]) / limit))
    centre = places[0][1] < 0.05  # the bearing means nothing there
    np.testing.assert_allclose(places[0][1], places[1][1], atol=2e-3)
    turned = (places[0][0] - places[1][0] + np.pi) % (2 * np.pi) - np.pi
    np.testing.assert_allclose(turned[~centre], 0, atol=2e-3)


def test_warping_back_by_the_flow_gives_the_frame():
    errors, without = [], []
    for seed in range(6):
        clip = synthetic_clip(seed, CLEAN)
        ids = clip.masks.argmax(-1)
        warped, inside = _warp_back(clip.images[1], clip.flow[0])
        owners, _ = _warp_back(clip.masks[1], clip.flow[0])
        same = inside & (np.take_along_axis(owners, ids[0][..., None], -1)[..., 0] > 0.99)
        assert same.mean() > 0.75
        errors.append(np.abs(warped - clip.images[0])[same].mean())
        without.append(np.abs(clip.images[1] - clip.images[0])[same].mean())
    assert np.mean(errors) < 0.4 * np.mean(without)


def test_edges_against_the_slow_definition():
    clip = synthetic_clip(2, SMALL)
    for frame, edges in zip(clip.masks, clip.edges, strict=True):
        np.testing.assert_array_equal(edges, _slow_edges(1 - frame[..., 0]))
    square = np.zeros((12, 12), np.float32)
    square[:, 5:] = 1
    np.testing.assert_array_equal(np.nonzero(mask_edges(square)[3])[0], [4, 5])  # two pixels wide


def test_areas_stay_in_range():
    config = SyntheticConfig(height=64, width=64, num_objects=1, num_frames=1, flow_noise=0.0)
    areas = np.array([1 - synthetic_clip(seed, config).masks[..., 0].mean() for seed in range(40)])
    assert np.percentile(areas, 10) < 0.04 and np.percentile(areas, 90) > 0.12 and areas.max() < 0.7
    assert (areas > 0).mean() > 0.9


def test_bad_configs():
    for options in ({"height": 8}, {"num_objects": 0}, {"num_frames": 0}, {"min_area": 0.0},
                    {"min_objects": 0}, {"min_objects": 4}):
        with pytest.raises(InputError):
            SyntheticConfig(**options)


def test_needs_no_opencv_av_or_matplotlib():
    code = ("import sys; import jaxvos.data._synthetic as s;"
            "s.synthetic_clip(0, s.SyntheticConfig(height=32, width=32));"
            "print([m for m in ('cv2', 'av', 'matplotlib', 'tensorflow') if m in sys.modules])")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
