"""The made next frame against its statement in NumPy, with the object's motion read off the flow."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import binary_erosion, map_coordinates

from jaxvos.ops import synthesise_next_frame, warp

H, W = 36, 44
ROWS, COLUMNS = np.mgrid[:H, :W].astype(np.float32)
GRID = np.stack([COLUMNS, ROWS], -1)
OBJECT = (((COLUMNS - 20) / 11) ** 2 + ((ROWS - 17) / 8) ** 2 < 1) & ~((COLUMNS > 20) & (ROWS < 14))
SMOOTH = np.stack([0.5 + 0.4 * np.sin(COLUMNS / 4 + phase) * np.cos(ROWS / 5) for phase in (0, 1, 2)], -1)
NOISE = np.random.default_rng(0).uniform(size=(H, W, 3)).astype(np.float32)
KEYS = jax.random.split(jax.random.key(1), 12)
STILL = {"rotation": 0.0, "shift": 0.0, "scale": (1.0, 1.0)}


@functools.cache
def _jitted(**options):
    return jax.jit(jax.vmap(functools.partial(synthesise_next_frame, **options), (0, None, None)))


def _make(image=NOISE, mask=OBJECT, *, keys=KEYS, **options):
    """The next frames for all keys, as NumPy arrays."""
    made = _jitted(**options)(keys, jnp.array(image, jnp.float32), jnp.array(mask, jnp.float32))
    return jax.tree.map(np.asarray, made)


def _sample(x, points):
    return map_coordinates(x.astype(float), (points[..., 1], points[..., 0]), order=1, mode="nearest")


def _motion(flow, mask):
    """`A(p) = R (p - c) + c + tau` as the flow has it: R, c, tau."""
    p = GRID[mask].astype(float)
    c = p.mean(0)
    design = np.concatenate([p - c, np.ones((len(p), 1))], 1)
    solution, *_ = np.linalg.lstsq(design, p + flow[mask] - c, rcond=None)
    np.testing.assert_allclose(design @ solution, p + flow[mask] - c, atol=1e-3)
    return solution[:2].T, c, solution[2]


def _inside(points):
    return np.all((points >= -0.5) & (points <= np.array([W, H]) - 0.5), -1)


@pytest.mark.parametrize("hole", ["black", "mean"])
def test_the_frame_is_what_the_equation_says(hole):
    made = _make(hole=hole)
    for image, mask, flow, occluded in zip(*made, strict=True):
        R, c, tau = _motion(flow, OBJECT)
        source = (GRID - c - tau) @ np.linalg.inv(R).T + c
        share = _sample(OBJECT, source)
        sure = np.abs(share - 0.5) > 1e-2
        M_next = share > 0.5
        moved = np.stack([_sample(NOISE[..., i], source) for i in range(3)], -1)
        colour = 0 if hole == "black" else NOISE[~OBJECT].mean(0)
        expected = np.where(M_next[..., None], moved, np.where(OBJECT[..., None], colour, NOISE))
        np.testing.assert_allclose(image[sure], expected[sure], atol=2e-3)
        np.testing.assert_array_equal(mask[sure], M_next[sure])
        np.testing.assert_array_equal(occluded, (mask > 0) & ~OBJECT)
        assert np.all(flow[~OBJECT] == 0) and np.any(OBJECT & ~M_next) and np.any(occluded)


@pytest.mark.parametrize("elastic", [0.0, 0.1])
def test_the_flow_brings_the_objects_interior_back(elastic):
    made = _make(SMOOTH, elastic=elastic)
    interior = binary_erosion(OBJECT, iterations=3)
    back = np.asarray(jax.vmap(warp)(made.image, made.flow))
    assert np.abs(back - SMOOTH)[:, interior].max() < 0.03
    assert np.abs(made.image - SMOOTH)[:, interior].max() > 0.1


def test_the_motion_keeps_to_its_limits():
    sides = np.array([21, 15])
    assert np.ptp(GRID[OBJECT], axis=0).tolist() == (sides - 1).tolist()
    motions = [_motion(flow, OBJECT) for flow in _make(rotation=20.0, shift=0.2, scale=(0.8, 1.1)).flow]
    angles = np.array([np.degrees(np.arctan2(R[1, 0], R[0, 0])) for R, _, _ in motions])
    zooms = np.array([np.sqrt(np.linalg.det(R)) for R, _, _ in motions])
    shares = np.abs([tau / sides for _, _, tau in motions])
    assert all(np.allclose(R @ R.T, np.linalg.det(R) * np.eye(2), atol=1e-3) for R, _, _ in motions)
    assert 14 < np.abs(angles).max() < 20.01 and angles.min() < 0 < angles.max()
    assert 0.79 < zooms.min() < 0.85 and 1.0 < zooms.max() < 1.11
    assert np.all((shares.max(0) > 0.15) & (shares.max(0) < 0.201))


@pytest.mark.parametrize("option", [{"rotation": 20.0}, {"shift": 0.2}, {"scale": (1.1, 1.2)}, {"elastic": 0.08},
                                    {"background": 0.1}, {"hole": "mean"}, {"hole": "inpaint"}])  # fmt: skip
def test_every_option_changes_the_frame(option):
    plain, changed = _make(), _make(**option)
    assert np.abs(plain.image - changed.image).max((1, 2, 3)).min() > 0.02
    assert ("hole" in option) == np.array_equal(plain.flow, changed.flow)


def test_a_bend_is_of_its_amplitude_and_leaves_the_rest_of_the_motion():
    bend = _make(**STILL, elastic=0.1).flow[:, OBJECT]
    assert np.all(np.abs(bend).max((0, 1)) < 0.1001 * np.array([21, 15]))
    assert np.all(np.abs(bend).max((0, 1)) > 0.09 * np.array([21, 15]))
    with pytest.raises(ValueError, match="elastic"):
        synthesise_next_frame(KEYS[0], jnp.array(NOISE), jnp.array(OBJECT, jnp.float32), elastic=0.2)


def test_a_moving_background_is_in_the_flow_and_the_object_hides_some_of_it():
    made, resting = _make(SMOOTH, background=0.1), _make(SMOOTH)
    np.testing.assert_array_equal(made.mask, resting.mask)
    np.testing.assert_array_equal(made.flow[:, OBJECT], resting.flow[:, OBJECT])
    for image, mask, flow, occluded in zip(*made, strict=True):
        drift = flow[0, 0]
        assert np.all(np.abs(drift) <= 0.1 * np.array([W, H])) and np.all(flow[~OBJECT] == drift)
        target = GRID + drift
        hidden = (_sample(mask, target) > 0.5) & _inside(target) & ~OBJECT
        assert np.sum(hidden ^ occluded) <= 0.3 * np.sum(hidden)  # of the mask between pixels
        back = np.asarray(warp(jnp.array(image), jnp.array(flow)))
        near = binary_erosion(~OBJECT & ~occluded, iterations=3) & _inside(target + 1) & _inside(target - 1)
        assert near.sum() > 300 and np.abs(back - SMOOTH)[near].max() < 0.03
    assert np.ptp(made.flow[:, 0, 0], axis=0).min() > 3


def test_half_of_the_object_stays_in_the_frame():
    mask = (COLUMNS < 10) & (ROWS > 6) & (ROWS < 20)
    flow = _make(mask=mask, shift=3.0).flow
    kept = np.mean([_inside(GRID[mask] + f[mask]) for f in flow], axis=1)
    assert kept.min() >= 0.5 and np.sum(kept < 0.8) >= 3
    free = _make(mask=mask, shift=1.0).flow  # the same draws, a third as far
    ratios = np.array([np.linalg.norm(_motion(f, mask)[2]) / np.linalg.norm(_motion(g, mask)[2])
                       for f, g in zip(flow, free, strict=True)])  # fmt: skip
    assert ratios.min() < 2.5 and ratios.max() < 3.01


@pytest.mark.parametrize("hole", ["black", "mean", "inpaint"])
def test_no_object_and_nothing_but_object(hole):
    nothing, everything = np.zeros((H, W)), np.ones((H, W))
    made = _make(mask=nothing, hole=hole)
    np.testing.assert_array_equal(made.image, np.broadcast_to(NOISE, made.image.shape))
    assert not made.flow.any() and not made.mask.any() and not made.occluded.any()
    made = _make(mask=everything, hole=hole)
    assert np.isfinite(made.image).all() and made.flow.any() and not made.occluded.any()
    bare = made.mask == 0
    assert bare.any()
    expected = {"black": 0 * NOISE, "mean": 0 * NOISE + NOISE.mean((0, 1)), "inpaint": NOISE}[hole]
    np.testing.assert_allclose(made.image[bare], np.broadcast_to(expected, made.image.shape)[bare], atol=1e-5)
    total = lambda image, mask: sum(  # noqa: E731
        jnp.sum(x) for x in synthesise_next_frame(KEYS[0], image, mask, hole=hole, elastic=0.1, background=0.1)[:3])
    gradient = jax.jit(jax.grad(total, (0, 1)))
    for mask in (nothing, everything):
        assert all(np.isfinite(g).all() for g in gradient(jnp.array(NOISE), jnp.array(mask, jnp.float32)))


def test_an_object_that_does_not_move_leaves_the_frame_alone():
    made = _make(**STILL)
    np.testing.assert_allclose(made.image, np.broadcast_to(NOISE, made.image.shape), atol=1e-5)
    np.testing.assert_array_equal(made.mask, np.broadcast_to(OBJECT, made.mask.shape))


def test_a_hole_is_filled_with_what_is_around_it():
    ramp = np.stack([COLUMNS / W, ROWS / H, np.full((H, W), 0.3)], -1)
    image = np.where(OBJECT[..., None], np.float32(9.0), ramp)
    made = _make(image, hole="inpaint", shift=0.5)
    for image, mask in zip(made.image, made.mask, strict=True):
        hole = OBJECT & (mask == 0)
        assert hole.sum() > 20
        np.testing.assert_allclose(image[hole][:, 2], 0.3, atol=1e-5)
        assert np.abs(image - ramp)[hole].max() < 0.2 and np.abs(image - ramp)[hole].mean() < 0.06


def test_a_key_makes_one_frame_alone_or_among_others():
    together = _make(elastic=0.1, background=0.1)
    assert len({image.tobytes() for image in together.image}) == len(KEYS)
    alone = jax.jit(functools.partial(synthesise_next_frame, elastic=0.1, background=0.1))
    for i, key in enumerate(KEYS[:3]):
        made = alone(key, jnp.array(NOISE), jnp.array(OBJECT, jnp.float32))
        np.testing.assert_allclose(made.flow, together.flow[i], atol=1e-5)
        np.testing.assert_allclose(made.image, together.image[i], atol=1e-4)
        np.testing.assert_array_equal(made.mask, together.mask[i])
