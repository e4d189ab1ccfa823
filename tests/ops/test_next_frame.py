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
WIDE = {"rotation": 20.0, "shift": 0.2, "scale": (0.8, 1.1)}
SIDES = np.array([21, 15])  # of the object's box


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


def _moved_mask(motion, points):
    """The share of the object at points of the next frame."""
    R, c, tau = motion
    source = (points - c - tau) @ np.linalg.inv(R).T + c
    return _sample(OBJECT, source), source


def _inside(points):
    return np.all((points >= -0.5) & (points <= np.array([W, H]) - 0.5), -1)


@pytest.mark.parametrize("options", [{}, {"hole": "mean"}])
def test_the_frame_is_what_the_equation_says(options):
    colour = NOISE[~OBJECT].mean(0) if options else 0
    made = _make(**options)
    for image, mask, flow, occluded in zip(*made, strict=True):
        share, source = _moved_mask(_motion(flow, OBJECT), GRID)
        sure = np.abs(share - 0.5) > 1e-2
        M_next = share > 0.5
        moved = np.stack([_sample(NOISE[..., i], source) for i in range(3)], -1)
        expected = np.where(M_next[..., None], moved, np.where(OBJECT[..., None], colour, NOISE))
        np.testing.assert_allclose(image[sure], expected[sure], atol=2e-3)
        np.testing.assert_array_equal(mask[sure], M_next[sure])
        np.testing.assert_array_equal(occluded, (mask > 0) & ~OBJECT)
        assert np.all(flow[~OBJECT] == 0)
    assert np.sum(OBJECT & (made.mask == 0)) > 100 and np.sum(made.occluded) > 100


@pytest.mark.parametrize("options", [{}, {"elastic": 0.1}])
def test_the_flow_brings_the_objects_interior_back(options):
    made = _make(SMOOTH, **options)
    interior = binary_erosion(OBJECT, iterations=3)
    back = np.asarray(jax.jit(jax.vmap(warp))(made.image, made.flow))
    assert np.abs(back - SMOOTH)[:, interior].max() < 0.03
    assert np.abs(made.image - SMOOTH)[:, interior].max() > 0.1


def test_the_motion_keeps_to_its_limits_and_uses_them():
    motions = [_motion(flow, OBJECT) for flow in _make(**WIDE).flow]
    angles = np.array([np.degrees(np.arctan2(R[1, 0], R[0, 0])) for R, _, _ in motions])
    zooms = np.array([np.sqrt(np.linalg.det(R)) for R, _, _ in motions])
    shares = np.abs([tau / SIDES for _, _, tau in motions])
    assert all(np.allclose(R @ R.T, np.linalg.det(R) * np.eye(2), atol=1e-3) for R, _, _ in motions)
    assert 12 < np.abs(angles).max() < 20.01 and angles.min() < 0 < angles.max()
    assert 0.799 < zooms.min() < 0.87 and 1.05 < zooms.max() < 1.101
    assert np.all((shares.max(0) > 0.12) & (shares.max(0) < 0.201))


def test_a_bend_is_of_its_amplitude_and_neither_turns_nor_moves_the_rest():
    bends = _make(**STILL, elastic=0.1).flow
    assert np.all(np.abs(bends).max((0, 1, 2)) < 0.1001 * SIDES)
    assert np.all(np.abs(bends).max((0, 1, 2)) > 0.09 * SIDES)
    assert not bends[:, ~OBJECT].any()
    with pytest.raises(AssertionError):  # it is no affine motion
        _motion(bends[0], OBJECT)
    with pytest.raises(ValueError, match="elastic"):
        synthesise_next_frame(KEYS[0], jnp.array(NOISE), jnp.array(OBJECT, jnp.float32), elastic=0.2)


def test_a_moving_background_is_in_the_flow_and_the_object_hides_some_of_it():
    made, resting = _make(SMOOTH, background=0.1), _make(SMOOTH)
    np.testing.assert_array_equal(made.mask, resting.mask)
    np.testing.assert_array_equal(made.flow[:, OBJECT], resting.flow[:, OBJECT])
    for image, flow, occluded in zip(made.image, made.flow, made.occluded, strict=True):
        drift = flow[0, 0]
        assert np.all(np.abs(drift) <= 0.1 * np.array([W, H])) and np.all(flow[~OBJECT] == drift)
        target = GRID + drift
        share, _ = _moved_mask(_motion(flow, OBJECT), target)
        sure = np.abs(share - 0.5) > 1e-2
        np.testing.assert_array_equal(occluded[sure], ((share > 0.5) & ~OBJECT)[sure])
        back = np.asarray(warp(jnp.array(image), jnp.array(flow)))
        near = binary_erosion(~OBJECT & ~occluded, iterations=3) & _inside(target + 1) & _inside(target - 1)
        assert near.sum() > 300 and np.abs(back - SMOOTH)[near].max() < 0.03
    assert np.ptp(made.flow[:, 0, 0], axis=0).min() > 3 and np.any(made.occluded != resting.occluded)


def test_half_of_the_object_stays_in_the_frame():
    mask = (COLUMNS < 10) & (ROWS > 6) & (ROWS < 20)
    kept, shortened = [], []
    for far, near in zip(_make(mask=mask, shift=3.0).flow, _make(mask=mask, **WIDE).flow, strict=True):
        kept.append(np.mean(_inside(GRID[mask] + far[mask])))
        drawn = 15 * _motion(near, mask)[2]  # the same draw
        tau = _motion(far, mask)[2]
        shortened.append(np.linalg.norm(tau) / np.linalg.norm(drawn))
        np.testing.assert_allclose(tau, shortened[-1] * drawn, atol=0.1)
    assert min(kept) >= 0.5 and np.sum(np.array(kept) < 0.7) >= 3
    assert min(shortened) < 0.5 and max(shortened) < 1.01


@pytest.mark.parametrize(("options", "expected"), [({}, 0 * NOISE), ({"hole": "mean"}, 0 * NOISE + NOISE.mean((0, 1))),
                                                   ({"hole": "inpaint"}, NOISE)])  # fmt: skip
def test_no_object_and_nothing_but_object(options, expected):
    made = _make(mask=np.zeros((H, W)), **options)
    np.testing.assert_array_equal(made.image, np.broadcast_to(NOISE, made.image.shape))
    assert not made.flow.any() and not made.mask.any() and not made.occluded.any()
    made = _make(mask=np.ones((H, W)), **options)
    bare = made.mask == 0
    assert bare.any() and made.flow.any() and not made.occluded.any()
    np.testing.assert_allclose(made.image[bare], np.broadcast_to(expected, made.image.shape)[bare], atol=1e-5)


def test_gradients_are_finite_whatever_the_mask():
    def total(image, mask):
        made = synthesise_next_frame(KEYS[0], image, mask, hole="inpaint", elastic=0.1, background=0.1)
        return jnp.sum(made.image) + jnp.sum(made.mask) + jnp.sum(made.flow**2)

    gradient = jax.jit(jax.grad(total, (0, 1)))
    for mask in (np.zeros((H, W)), OBJECT, np.ones((H, W))):
        image_gradient, mask_gradient = gradient(jnp.array(NOISE), jnp.array(mask, jnp.float32))
        assert np.isfinite(image_gradient).all() and np.isfinite(mask_gradient).all() and np.any(image_gradient != 0)


def test_an_object_that_does_not_move_leaves_the_frame_alone():
    made = _make(**STILL)
    np.testing.assert_allclose(made.image, np.broadcast_to(NOISE, made.image.shape), atol=1e-5)
    np.testing.assert_array_equal(made.mask, np.broadcast_to(OBJECT, made.mask.shape))


def test_a_hole_is_filled_with_what_is_around_it():
    ramp = np.stack([COLUMNS / W, ROWS / H, np.full((H, W), 0.3)], -1)
    made = _make(np.where(OBJECT[..., None], 9.0, ramp), hole="inpaint")
    holes = OBJECT & (made.mask == 0)
    error = np.abs(made.image - ramp)[holes]
    assert len(error) > 100 and error[:, 2].max() < 1e-5
    assert error.max() < 0.15 and error.mean() < 0.03


def test_a_key_makes_one_frame_alone_or_among_others():
    together = _make(elastic=0.1)
    assert len({image.tobytes() for image in together.image}) == len(KEYS)
    alone = jax.jit(functools.partial(synthesise_next_frame, elastic=0.1))
    for i, key in enumerate(KEYS[:3]):
        made = alone(key, jnp.array(NOISE), jnp.array(OBJECT, jnp.float32))
        np.testing.assert_allclose(made.flow, together.flow[i], atol=1e-4)
        np.testing.assert_allclose(made.image, together.image[i], atol=1e-3)
        np.testing.assert_array_equal(made.mask, together.mask[i])
