"""Mask-VOS with its own nets, at the smallest size: the fold against a plain list, the losses against loops."""

import dataclasses
import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from reference import correspondence as loops
from reference import propagation
from reference.toy_space_time import frame, image, mask, run, stack

from jaxvos.errors import InputError
from jaxvos.inference import fold_clip, jitted_predict
from jaxvos.losses import bootstrapped_cross_entropy
from jaxvos.metrics import region_similarity
from jaxvos.models import abstract_variables
from jaxvos.ops import Affine, resize, tell_masks
from jaxvos.system import Clip, Frame
from jaxvos.systems import (
    MaskVOSConfig,
    MaskVOSLossConfig,
    MaskVOSNetConfig,
    PropagationConfig,
    mask_vos,
    mask_vos_keys,
    value_from_frames,
)
from jaxvos.systems._mask_vos_loss import _long, _moved, _short
from jaxvos.systems._mask_vos_net import MaskVOSNet, MaskVOSObjects
from jaxvos.systems._views import random_view, warp_clips
from jaxvos.training import evolve

SIZE, MAP = (32, 48), (4, 6)
NET = MaskVOSNetConfig(encoder_width=4, key_width=8, value_width=8, decoder_widths=(8, 8, 8))
BASE = MaskVOSConfig(net=NET, memory=PropagationConfig(context=3, rounds=1, chunk=10))
PLAIN = evolve(BASE, memory={"rounds": 0})  # label propagation: what is answered depends on keys and masks alone


@functools.cache
def _system(config):
    return mask_vos(config)


@functools.cache
def _variables(config):
    """Random ones, the same for a parameter of the same name whatever the others are."""

    def draw(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        x = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(leaf.shape).astype(np.float32)
        if path[-1].key == "kernel":
            return jnp.array(x * np.prod(leaf.shape[:-1]) ** -0.5)
        return jnp.array(np.abs(x) + 0.5 if path[-1].key in ("scale", "var") else 0.3 * x)

    return jax.tree_util.tree_map_with_path(draw, abstract_variables(_system(config)))


def _run(config, frames, masks):
    return run(_system(config), frames, masks=masks, variables=_variables(config))


# ---- the fold --------------------------------------------------------------------------------------------------
def _events():
    """The second object is told on the third frame, the first is removed, and told again, as something else."""
    told, gone = {2: (2,), 7: (1,)}, {4: (True, False, True), 5: (True, False, True)}
    return [frame(t, 1, 2, size=SIZE, told=told.get(t, ()), alive=gone.get(t)) for t in range(10)]


@functools.cache
def _streamed():
    return _run(BASE, _events(), mask(0, 1, size=SIZE))


def test_the_scan_equals_the_stream_and_one_trace_serves_all_events():
    streamed, memory = _streamed()
    scan = jax.jit(functools.partial(fold_clip, _system(BASE)))
    last, scanned = scan(_variables(BASE), stack(_events()), masks=jnp.array(mask(0, 1, size=SIZE)))
    np.testing.assert_allclose(scanned.masks, streamed, atol=1e-4)
    for scan, stream in zip(jax.tree.leaves(last), jax.tree.leaves(memory), strict=True):
        np.testing.assert_allclose(scan, stream, atol=1e-3)
    assert jitted_predict(_system(BASE))._cache_size() == 1


def test_masks_that_are_told_are_kept_and_objects_come_and_go():
    streamed, _ = _streamed()
    np.testing.assert_allclose(streamed.sum(axis=-1), 1, atol=1e-5)
    for t, slot in ((0, 1), (2, 2), (7, 1)):
        np.testing.assert_array_equal(streamed[t, ..., slot], mask(t, slot, size=SIZE)[..., slot])
    np.testing.assert_array_equal(streamed[0], mask(0, 1, size=SIZE))
    assert np.all(streamed[:2, ..., 2] == 0) and np.all(streamed[4:7, ..., 1] == 0)
    assert all(np.ptp(streamed[t, ..., slot]) > 1e-3 for t, slot in ((1, 1), (3, 2), (5, 2), (8, 1), (9, 2)))


def test_memory_never_changes_its_shape():
    system, variables, events = _system(BASE), _variables(BASE), _events()
    memory = jax.eval_shape(system.start, variables, events[0], jnp.array(mask(0, 1, size=SIZE)))
    after, prediction = jax.eval_shape(system.predict, variables, memory, events[0])
    assert after == memory and prediction.masks.shape == (*SIZE, 3)
    assert jax.tree.map(lambda x: x.shape, _streamed()[1]) == jax.tree.map(lambda x: x.shape, memory)
    assert memory.frames.values.shape == (2, 4, 24, NET.value_width + 1)  # three frames and the one that was told


@pytest.mark.parametrize("config", [PLAIN, pytest.param(BASE, marks=pytest.mark.slow)], ids=["plain", "refined"])
def test_slots_without_an_object_change_nothing(config):
    found = [_run(config, [frame(t, 1, 2, size=SIZE, slots=slots) for t in range(4)],
                  mask(0, 1, 2, slots=slots, size=SIZE))[0] for slots in (3, 5)]  # fmt: skip
    np.testing.assert_allclose(found[1][..., :3], found[0], atol=1e-5)
    assert np.all(found[1][..., 3:] == 0) and np.abs(np.diff(found[0], axis=0)).max() > 0.01


def _noise(count, *, size=SIZE):
    return np.random.default_rng(0).random((count, *size, 3)).astype(np.float32)


def _list_propagation(config, images, told):
    """Label propagation with a list of frames, each `(told, key, masks)`; `told` are masks by the number of a frame."""
    options, slots = config.memory, told[min(told)].shape[-1]
    keys = np.asarray(mask_vos_keys(config, _variables(config), jnp.array(images))).reshape(len(images), -1, 8)
    kept, found, alive = [], [], np.zeros(slots - 1, bool)
    for t, key in enumerate(keys):
        coarse = np.zeros((slots - 1, key.shape[0], 1))
        if kept:
            coarse = propagation.propagate(
                key, np.stack([x[1] for x in kept]), np.stack([x[2] for x in kept], axis=1),
                size=MAP, valid=np.stack([x[3] for x in kept], axis=1), far=[x[0] for x in kept],
                temperature=options.temperature, top_k=options.top_k, radius=options.radius)  # fmt: skip
        coarse = resize(jnp.array(np.moveaxis(coarse.reshape(-1, *MAP), 0, -1), jnp.float32), SIZE)
        masks = jnp.concatenate([1 - coarse.sum(axis=-1, keepdims=True), coarse], axis=-1)
        if t in told:
            masks = tell_masks(masks, jnp.array(told[t]))
            alive = alive | told[t][..., 1:].any(axis=(0, 1))
        found.append(np.asarray(masks))
        if t in told or options.context:
            if len(kept) > options.context:
                kept.pop(next((i for i, x in enumerate(kept) if not x[0]), 0))
            value = np.moveaxis(np.asarray(resize(masks[..., 1:], MAP)), -1, 0)
            kept.append((t in told, key, value.reshape(slots - 1, -1, 1), alive))
    return np.stack(found)


TOLD = {0: mask(0, 1, size=SIZE), 2: mask(2, 2, size=SIZE)}


@functools.cache
def _propagated(config):
    """Of the frame that was told, of one that was told later, and of the last ones."""
    frames = [Frame(jnp.array(x), masks=jnp.array(TOLD.get(t, mask(0, size=SIZE)))) for t, x in enumerate(_noise(8))]
    return _run(config, frames, TOLD[0])


_slow = functools.partial(pytest.param, marks=pytest.mark.slow)


@pytest.mark.parametrize("options", [
    {}, {"context": 0}, _slow({"context": 1}), _slow({"context": 20}), {"radius": 2.0}, {"top_k": 3},
    {"temperature": 0.5}, {"backend": "dense"}, {"backend": "window", "radius": 2.0}, _slow({"backend": "window"}),
    _slow({"backend": "dense", "top_k": None, "radius": 2.0}), {"backend": "online", "top_k": None, "radius": 2.0},
    _slow({"backend": "online", "top_k": None, "radius": None}),
], ids=str)  # fmt: skip
def test_without_rounds_it_is_label_propagation_from_a_list(options):
    config = evolve(PLAIN, memory=options)
    found, memory = _propagated(config)
    np.testing.assert_allclose(found, _list_propagation(config, _noise(8), TOLD), atol=2e-5)
    assert np.abs(found[3:] - found[2:-1]).max() > 0.02
    written = sorted(np.asarray(memory.frames.written))
    expected = {0: [2], 1: [2, 7], 3: [0, 2, 6, 7]}  # those that a person marked, while there is room, and the latest
    assert written == expected.get(config.memory.context, [-1] * 13 + list(range(8)))


def test_rounds_encode_and_decode_what_the_round_before_said():
    rounds, net = 3, MaskVOSNet(NET)
    objects, variables, alive = MaskVOSObjects(net, 4, rounds), _variables(BASE), jnp.array([True, False, True])
    rng = np.random.default_rng(0)
    picture = jnp.array(image(0, 1, size=SIZE))
    look = jax.tree.map(lambda x: x[0], objects.look(variables, picture[None]))
    readout = jnp.array(rng.random((3, 24, 9)), jnp.float32)
    found, _ = objects.segment(variables, picture, look, readout, None, alive=alive)
    values = readout[..., :-1].reshape(3, *MAP, 8)
    coarse = readout[..., -1].reshape(3, *MAP) * alive[:, None, None]
    coarse = masks = resize(jnp.moveaxis(coarse, 0, -1), SIZE)
    for _ in range(rounds):
        logits = objects.refine(variables, picture, look, values, coarse, masks, alive=alive)
        masks = jax.nn.softmax(logits)[..., 1:]
    np.testing.assert_allclose(jax.nn.softmax(found), jax.nn.softmax(logits), atol=1e-5)
    assert np.all(jax.nn.softmax(found)[..., 2] == 0)


@pytest.mark.parametrize("residual", [False, True])
def test_a_decoder_that_says_nothing_leaves_a_residual_mask_as_it_is(residual):
    objects = MaskVOSObjects(MaskVOSNet(dataclasses.replace(NET, residual=residual)), 4, 2)
    params = _variables(BASE)["params"]
    silent = {**params["decoder"], "pred": jax.tree.map(jnp.zeros_like, params["decoder"]["pred"])}
    variables = {**_variables(BASE), "params": {**params, "decoder": silent}}
    picture = jnp.array(image(0, 1, size=SIZE))
    look = jax.tree.map(lambda x: x[0], objects.look(variables, picture[None]))
    coarse = np.random.default_rng(0).random((1, *MAP)).astype(np.float32)
    readout = jnp.concatenate([jnp.ones((1, 24, 8)), coarse.reshape(1, 24, 1)], axis=-1)
    found = objects.segment(variables, picture, look, readout, None, alive=jnp.ones(1, bool))[0]
    masks, expected = jax.nn.softmax(found)[..., 1], np.asarray(resize(jnp.array(coarse[0, ..., None]), SIZE))[..., 0]
    clear = np.abs(expected - 0.5) > 1e-4
    assert (((masks > 0.5) == (expected > 0.5))[clear].all()) == residual
    assert residual or np.ptp(masks) < 1e-6


def test_without_masks_there_is_nothing_to_follow():
    with pytest.raises(ValueError, match="give their masks on the first frame"):
        _system(BASE).start(_variables(BASE), frame(0, size=SIZE))


@pytest.mark.parametrize(("options", "words"), [
    ({"context": -1}, "context -1"), ({"rounds": -1}, "rounds -1"), ({"temperature": 0.0}, "temperature 0.0"),
    ({"top_k": None}, "scan needs top_k"), ({"backend": "window", "top_k": None}, "window needs top_k"),
    ({"backend": "online"}, "leave top_k out"), ({"backend": "window", "radius": None}, "window needs radius"),
], ids=str)  # fmt: skip
def test_propagation_that_makes_no_sense_is_named(options, words):
    with pytest.raises(InputError, match=words):
        PropagationConfig(**options)


# ---- the losses ------------------------------------------------------------------------------------------------
def _clip(*, slots=3, alive=None, masks=True):
    """Two clips of three frames."""
    images = np.stack([[image(first + t, 1, 2, size=SIZE) for t in (0, 1, 4)] for first in (0, 7)])
    labels = np.stack([[mask(first + t, 1, 2, slots=slots, size=SIZE) for t in (0, 1, 4)] for first in (0, 7)])
    alive = np.broadcast_to(np.arange(slots) < 3, (2, slots)) if alive is None else np.array(alive)
    return Clip(jnp.array(images), jnp.array(labels) if masks else None, alive=jnp.array(alive))


def _objective(**options):
    return evolve(BASE, objective=options)


def _output(config, clip=None, *, seed=0):
    """Not compiled as a whole: most operations are shared by all configurations, and compiled once for all."""
    clip = _clip() if clip is None else clip
    return _system(config).loss(_variables(config), clip, key=jax.random.key(seed), step=0)


@functools.cache
def _graded(config):
    loss = lambda params, rest, clip: _system(config).loss(  # noqa: E731
        {**rest, "params": params}, clip, key=jax.random.key(0), step=jnp.int32(0))  # fmt: skip
    graded = jax.jit(jax.value_and_grad(lambda *each: (lambda x: (x.loss, x))(loss(*each)), has_aux=True))
    rest = {name: x for name, x in _variables(config).items() if name != "params"}
    return lambda clip: graded(_variables(config)["params"], rest, clip)


def _reached(gradient):
    """Names of parameters by whether they get a gradient; those that get only what rounding leaves do not."""
    names = {True: set(), False: set()}
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        assert np.isfinite(leaf).all(), name
        names[bool(np.abs(leaf).max() > 1e-7)].add(name)
    return names


STATIC = _objective(batch_norm=False)


@pytest.mark.parametrize("config", [
    pytest.param(STATIC, id="stored"),
    *(pytest.param(_objective(scheme=x), id=x, marks=pytest.mark.slow) for x in ("short_long", "dul", "mast", "crw")),
])  # fmt: skip
def test_gradients_are_finite_and_reach_every_parameter(config):
    """But the bias before a normalisation by the batch, which takes it away again."""
    (loss, output), gradient = _graded(config)(_clip())
    assert np.isfinite(loss) and loss > 0
    normalised = config.objective.batch_norm
    assert _reached(gradient)[False] == ({"hidden/bias"} if normalised else set())
    assert set(output.model_state) == ({"batch_stats"} if normalised else set())


@pytest.mark.slow
def test_without_masks_only_the_encoder_learns():
    (loss, output), gradient = _graded(STATIC)(_clip(masks=False))
    assert np.isfinite(loss) and "seg" not in output.scalars
    names = _reached(gradient)
    assert {name.split("/")[0] for name in names[False]} == {"value", "join", "decoder"}
    assert {name.split("/")[0] for name in names[True]} == {"encoder", "hidden", "hidden_norm", "key_proj"}


@pytest.mark.slow
def test_without_masks_there_is_no_loss_of_fake_objects():
    output, with_masks = _output(BASE, _clip(masks=False)), _output(BASE)
    assert set(output.scalars) == {"short", "long"} and set(with_masks.scalars) == {"short", "long", "seg"}
    expected = 0.1 * float(output.scalars["short"]) + 0.5 * float(output.scalars["long"])
    assert output.loss == pytest.approx(expected, rel=1e-5)
    assert with_masks.loss == pytest.approx(expected + float(with_masks.scalars["seg"]), rel=1e-5)


def test_clips_whose_objects_are_all_dead_weigh_nothing():
    both, none = [True, True, True], [True, False, False]
    twice = jax.tree.map(lambda x: jnp.stack([x[0], x[0]]), _clip())
    halved = twice._replace(alive=jnp.array([both, none]))
    mixed = _clip(alive=[both, none])
    expected = _graded(STATIC)(twice)[0][1].scalars["seg"]
    for clip in (halved, mixed):
        (loss, output), gradient = _graded(STATIC)(clip)
        assert output.scalars["seg"] == pytest.approx(float(expected), rel=1e-4) and np.isfinite(loss)
        assert not _reached(gradient)[False]
    (_, output), gradient = _graded(STATIC)(_clip(alive=[none, none]))
    assert output.scalars["seg"] == 0 and all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))
    assert {name.split("/")[0] for name in _reached(gradient)[False]} == {"value", "join", "decoder"}
    unsaid = _graded(STATIC)(_clip()._replace(alive=jnp.ones((2, 3), bool)))[0][0]
    assert float(unsaid) == pytest.approx(float(_output(STATIC, _clip()._replace(alive=None)).loss), rel=1e-4)


def test_what_a_slot_without_an_object_holds_does_not_matter():
    clip = _clip(alive=[[True, True, False]] * 2)
    other = clip._replace(masks=clip.masks.at[..., 2].set(0))
    assert float(_graded(STATIC)(clip)[0][0]) == pytest.approx(float(_graded(STATIC)(other)[0][0]), rel=1e-5)


@pytest.mark.slow
def test_slots_without_an_object_change_no_loss():
    found, expected = _output(STATIC, _clip(slots=5)), _output(STATIC)
    assert found.loss == pytest.approx(float(expected.loss), rel=1e-5)


def test_statistics_are_renewed_where_they_are_used():
    moved = _output(BASE).model_state["batch_stats"]
    before = _variables(BASE)["batch_stats"]
    assert jax.tree.structure(moved) == jax.tree.structure(before)
    change = {part: max(np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (moved[part], before[part])),
                                                            strict=True)) for part in before}  # fmt: skip
    assert change["encoder"] > 1e-3 and change["hidden_norm"] > 1e-3 and change["value"] == 0
    assert _output(STATIC).model_state == {}


def test_clips_have_three_frames():
    with pytest.raises(ValueError, match="clips of 2 frames"):
        _output(BASE, jax.tree.map(lambda x: x if x.ndim == 2 else x[:, :2], _clip()))


def _views(seed=0):
    """Keys of the clips and of their other view, and of the former in that view, as the loss of them has them."""
    images = _clip().images
    view_key, _ = jax.random.split(jax.random.key(seed))
    warps = jax.vmap(random_view)(jax.random.split(view_key, 2))
    look = lambda x: np.asarray(mask_vos_keys(BASE, _variables(BASE), x.reshape(-1, *SIZE, 3))).reshape(  # noqa: E731
        2, 3, *MAP, 8)  # fmt: skip
    clean, seen = look(images), look(warp_clips(images, warps, method="linear"))
    moved = np.asarray(warp_clips(jnp.array(clean), warps, method="linear"), float)
    return clean, seen, moved / np.linalg.norm(moved, axis=-1, keepdims=True)


def test_the_short_term_loss_against_a_loop():
    """Anchors are cells of the moved neighbour; the softmax runs over all cells of the frame as it is seen there."""
    _, seen, moved = _views()
    losses = []
    for b in range(2):
        anchors, view = moved[b, 1].reshape(24, 8), seen[b, 0].reshape(24, 8).astype(float)
        losses += [-loops.log_softmax(view @ anchors[k] / 0.05)[k] for k in range(24)]
    assert _output(STATIC).scalars["short"] == pytest.approx(np.mean(losses), rel=1e-4)


def test_the_long_term_loss_against_a_loop():
    """Rows are cells of the distant frame in the other view, columns those of the first; a softmax for each row."""
    clean, seen, moved = _views()
    losses = []
    for b in range(2):
        first = clean[b, 0].reshape(24, 8).astype(float)
        for label, judged in zip(seen[b, 2].reshape(24, 8), moved[b, 2].reshape(24, 8), strict=True):
            match = np.argmax([label.astype(float) @ there for there in first])
            losses.append(-loops.log_softmax([judged @ there / 0.05 for there in first])[match])
    assert _output(STATIC).scalars["long"] == pytest.approx(np.mean(losses), rel=1e-4)


def _maps(count, *, size=MAP, width=8):
    x = np.random.default_rng(0).normal(size=(count, 2, *size, width))
    return jnp.array(x / np.linalg.norm(x, axis=-1, keepdims=True), jnp.float32)


def test_labels_have_no_gradient_and_matches_may_have_to_come_back(key):
    seen, moved, first = _maps(3)
    inside = jnp.ones((2, *MAP), bool)
    total = lambda *each: _long(key, *each, inside, MaskVOSLossConfig())  # noqa: E731
    label, judged, memory = jax.grad(total, argnums=(0, 1, 2))(seen, moved, first)
    assert not label.any() and judged.any() and memory.any()
    assert abs(total(jnp.roll(seen, 1, axis=2), moved, first) - total(seen, moved, first)) > 0.1

    def filtered(distance):
        losses = []
        for b in range(2):
            a, c, judged = (np.asarray(x[b], float).reshape(24, 8) for x in (seen, first, moved))
            each = []
            for k in range(24):
                match = np.argmax(c @ a[k])
                back = np.argmax(a @ c[match])
                if np.hypot(back // 6 - k // 6, back % 6 - k % 6) <= distance:
                    each.append(-loops.log_softmax(c @ judged[k] / 0.05)[match])
            losses.append(np.mean(each) if each else 0)
        return np.mean(losses)

    found = {x: _long(key, seen, moved, first, inside, MaskVOSLossConfig(cycle_filter=x)) for x in (0.0, 1.5, 9.0)}
    for distance, loss in found.items():
        assert loss == pytest.approx(filtered(distance), rel=1e-4)
    assert found[9.0] == pytest.approx(float(total(seen, moved, first)), rel=1e-5) and len(set(map(float, found))) == 3


def test_both_sides_of_the_short_term_loss_learn(key):
    total = lambda *each: _short(key, *each, jnp.ones((2, *MAP), bool), MaskVOSLossConfig())  # noqa: E731
    sides = jax.grad(total, argnums=(0, 1))(*_maps(2))
    assert all(np.isfinite(x).all() and np.abs(x).max() > 1e-3 for x in sides)


@pytest.mark.parametrize(("temperature", "floor"), [(1.0, 5.93), (0.2, 2.07), (0.1, 0.045), (0.05, 2e-6)])
def test_without_a_temperature_nothing_can_be_learned(key, temperature, floor):
    """The least that the short-term loss can be, with 1024 cells that are all orthogonal; chance is 6.93."""
    apart = jnp.eye(1024).reshape(1, 32, 32, 1024)
    inside, config = jnp.ones((1, 32, 32), bool), MaskVOSLossConfig(temperature=temperature)
    assert _short(key, apart, apart, inside, config) == pytest.approx(floor, rel=0.1)
    same = jnp.ones((1, 32, 32, 1))
    assert _short(key, same, same, inside, config) == pytest.approx(6.93, abs=0.01)


def test_a_crop_by_the_nearest_cell_shows_each_four_times(key):
    """So that even keys that are the same in both views have a loss of log 4; interpolated ones do not."""
    keys = _maps(1, size=(16, 16), width=64)[:, :1, None][0]
    half = Affine(0.5 * jnp.eye(2)[None], jnp.zeros((1, 2)))
    losses = {}
    for align in ("linear", "nearest"):
        config = MaskVOSLossConfig(align=align)
        moved, inside = _moved(keys, half, config)
        assert inside.all()
        np.testing.assert_allclose(jnp.linalg.norm(moved, axis=-1), 1, atol=1e-5)
        losses[align] = float(_short(key, moved[:, 0], moved[:, 0], inside, config))
    assert losses["nearest"] == pytest.approx(np.log(4), abs=0.02) and losses["linear"] < 0.5


@pytest.mark.parametrize("steps", [_slow((2,)), (1, 2)])
def test_fake_objects_are_carried_by_one_round_of_the_fold(steps):
    """The loss is that of predictions with one round, from every place of all frames before, whose masks are told."""
    config = evolve(STATIC, memory={"backend": "dense", "top_k": None, "radius": None, "context": 20},
                    objective={"steps": steps})  # fmt: skip
    clip, losses = _clip(), []
    for images, masks in zip(clip.images, clip.masks, strict=True):
        for step in steps:
            frames = [Frame(x, masks=m * (t < step)) for t, (x, m) in enumerate(zip(images, masks, strict=True))]
            found, _ = _run(config, frames[: step + 1], masks[0])
            losses.append(bootstrapped_cross_entropy(jnp.log(jnp.array(found[step])), masks[step], 1.0))
    assert _output(config).scalars["seg"] == pytest.approx(np.mean(losses), rel=1e-3)


def test_refinement_is_learned_whatever_prediction_does():
    """Training decodes once, also where prediction does not decode at all."""
    for rounds in (0, 3):
        assert _output(evolve(STATIC, memory={"rounds": rounds})).loss == pytest.approx(float(_output(STATIC).loss))


@pytest.mark.parametrize(("options", "words"), [
    ({"short_weight": -1.0}, "weights"), ({"seg_weight": -1.0}, "weights"), ({"temperature": 0.0}, "temperature 0.0"),
    ({"steps": ()}, "steps"), ({"steps": (0,)}, "steps"), ({"steps": (1, 3)}, "steps"),
], ids=str)  # fmt: skip
def test_objectives_that_make_no_sense_are_named(options, words):
    with pytest.raises(InputError, match=words):
        MaskVOSLossConfig(**options)


# ---- options ---------------------------------------------------------------------------------------------------
OBJECTIVE = {
    "scheme": ["dul", "mast", "crw"],
    "short_weight": [0.5],
    "long_weight": [0.1],
    "seg_weight": [0.5],
    "temperature": [0.1],
    "align": ["nearest"],
    "grid": [2],
    "cycle_filter": [1.0],
    "steps": [(1,), (2,)],
    "hard_coarse": [True],
    "second_reference": ["predicted"],
    "batch_norm": [False],
}
NETS = {
    "encoder": ["resnet34", "resnet50", "efficientnet_lite0"],
    "encoder_width": [8],
    "key_head": ["linear", "none"],
    "key_width": [4],
    "value_encoder": ["resnet34", "efficientnet_lite0"],
    "fused": [False],
    "value_width": [4],
    "decoder_widths": [(8, 8, 4)],
    "coarse_branch": [False],
}
MEMORY = {
    "context": [0],
    "top_k": [3],
    "radius": [2.0],
    "temperature": [0.5],
    "short_side": [16],
    "rounds": [2, 0],
}
COMPUTED = {"backend": "dense", "chunk": 5, "slots": 1}  # how, and not what


def test_the_tables_of_options_are_complete():
    names = lambda config: {field.name for field in dataclasses.fields(config)}  # noqa: E731
    assert set(OBJECTIVE) == names(MaskVOSLossConfig)
    assert set(NETS) | {"residual"} == names(MaskVOSNetConfig)
    assert set(MEMORY) | set(COMPUTED) == names(PropagationConfig)
    assert names(MaskVOSConfig) == {"net", "memory", "objective"}


def _pairs(table):
    return [(name, value) for name, values in table.items() for value in values]


@functools.cache
def _loss(config):
    return float(_output(config).loss)


@pytest.mark.parametrize(("name", "value"), _pairs(OBJECTIVE))
def test_every_option_of_the_objective_changes_the_loss(name, value):
    before, after = _loss(BASE), _loss(_objective(**{name: value}))
    assert np.isfinite(after) and after > 0 and abs(after - before) > 1e-4


@pytest.mark.parametrize("scheme", ["dul", "mast", "crw"])
def test_weights_of_the_other_schemes(scheme):
    output = _output(_objective(scheme=scheme, long_weight=2.0, short_weight=3.0), _clip(masks=False))
    terms = {"long": 2.0, "short": 3.0} if scheme == "dul" else {"long": 2.0}
    assert set(output.scalars) == set(terms)
    assert output.loss == pytest.approx(sum(weight * float(output.scalars[x]) for x, weight in terms.items()), rel=1e-5)
    assert all(float(x) > 0 for x in output.scalars.values())


@pytest.mark.parametrize(("name", "value"), _pairs(NETS))
def test_every_option_of_the_net_changes_its_shapes(name, value):
    """Nothing is computed."""
    before, after = (jax.tree.map(lambda x: x.shape, abstract_variables(_system(x)))
                     for x in (BASE, evolve(BASE, net={name: value})))  # fmt: skip
    assert before != after


@functools.cache
def _answer(config):
    frames = [frame(t, 1, 2, size=SIZE) for t in range(6)]
    return _run(config, frames, mask(0, 1, 2, size=SIZE))[0][1:]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "value"), [*_pairs(NETS), ("residual", True)])
def test_every_option_of_the_net_changes_the_answer(name, value):
    before, after = _answer(BASE), _answer(evolve(BASE, net={name: value}))
    assert np.isfinite(after).all() and np.abs(after - before).max() > 1e-3


@pytest.mark.parametrize(("name", "value"), [
    pytest.param(name, value, marks=[pytest.mark.slow] if name == "rounds" else []) for name, value in _pairs(MEMORY)
])  # fmt: skip
def test_every_option_of_propagation_changes_the_answer(name, value):
    answer, base = (_answer, BASE) if name == "rounds" else (lambda config: _propagated(config)[0], PLAIN)
    before, after = answer(base), answer(evolve(base, memory={name: value}))
    assert np.isfinite(after).all() and np.abs(after - before).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(("name", "value"), COMPUTED.items())
def test_how_it_is_computed_does_not_change_the_answer(name, value):
    config = evolve(BASE, memory={name: value})
    np.testing.assert_allclose(_answer(config), _answer(BASE), atol=1e-4)
    arguments = _variables(BASE), _streamed()[1], _events()[0]
    one, other = (str(jax.make_jaxpr(_system(x).predict)(*arguments)) for x in (BASE, config))
    assert one != other  # it is heeded


# ---- the nets --------------------------------------------------------------------------------------------------
def test_keys_have_unit_length():
    images = jnp.array(_noise(2, size=(36, 52)))
    keys = mask_vos_keys(BASE, _variables(BASE), images)
    assert keys.shape == (2, 5, 7, 8) and np.abs(keys[0] - keys[1]).max() > 1e-3
    np.testing.assert_allclose(jnp.linalg.norm(keys, axis=-1), 1, atol=1e-5)
    np.testing.assert_array_equal(keys, MaskVOSNet(NET).apply(_variables(BASE), images, method="look").keys.key)


def test_sizes_of_the_published_nets():
    def count(part, **options):
        params = abstract_variables(_system(MaskVOSConfig(net=MaskVOSNetConfig(**options))))["params"]
        return sum(int(np.prod(x.shape)) for name in part if name in params for x in jax.tree.leaves(params[name]))

    head = ("hidden", "hidden_norm", "key_proj")
    assert count(("encoder",)) == 11_176_512 and count(head) == 329_344
    assert count(head, key_head="linear") == 65_664 and count(head, key_head="none") == 0
    assert count(("encoder",), encoder="resnet50") == 8_543_296
    assert count(("reduce", "reduce_norm"), encoder="resnet50") == 1024 * 512 + 2 * 512
    assert count(("value",)) == pytest.approx(17.0e6, rel=0.01)
    assert count(("join", "decoder")) == pytest.approx(16.8e6, rel=0.01)
    assert count(("join", "decoder"), encoder="resnet50") == pytest.approx(18.4e6, rel=0.01)


def _values(config, variables, masks):
    objects, picture = MaskVOSObjects(MaskVOSNet(config.net), 4), jnp.array(image(0, 1, size=SIZE))
    look = jax.tree.map(lambda x: x[0], objects.look(variables, picture[None]))
    return np.asarray(objects.remember(variables, picture, jnp.array(masks), look, None)[0])


@pytest.mark.parametrize("fused", [True, False])
def test_a_value_encoder_that_starts_as_that_of_frames_sees_no_mask_at_first(fused):
    config = evolve(BASE, net={"fused": fused})
    before = _variables(config)
    after = value_from_frames(config, before)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, before)
    one, other = mask(0, 1, size=SIZE), mask(1, 1, size=SIZE)
    values = {name: [_values(config, x, y)[0] for y in (one, other)] for name, x in (("old", before), ("new", after))}
    assert np.abs(np.subtract(*values["old"]))[:, :-1].max() > 1e-3
    np.testing.assert_array_equal(*(x[:, :-1] for x in values["new"]))
    assert np.abs(np.subtract(*values["new"]))[:, -1].max() == 1  # the mask itself is a value too
    for part in ("params", "batch_stats"):
        encoder = after[part]["value"]["encoder"]
        jax.tree.map(np.testing.assert_array_equal, encoder, {x: after[part]["encoder"][x] for x in encoder})
        jax.tree.map(np.testing.assert_array_equal, {x: y for x, y in after[part].items() if x != "value"},
                     {x: y for x, y in before[part].items() if x != "value"})  # fmt: skip
    last = "fuser" if fused else "value"
    jax.tree.map(np.testing.assert_array_equal, *(x["params"]["value"][last] for x in (after, before)))


def test_a_value_encoder_of_another_kind_cannot_start_as_that_of_frames():
    config = evolve(BASE, net={"value_encoder": "resnet34"})
    with pytest.raises(InputError, match="a resnet34 cannot start as a resnet18"):
        value_from_frames(config, _variables(config))


@pytest.mark.slow
def test_one_clip_is_learned_by_heart():
    """A blob that moves: its masks are carried from the first frame to the others."""
    size, places = (64, 64), ((28, 24), (32, 32), (38, 44))
    y, x = np.mgrid[:64, :64]
    blobs = np.stack([np.hypot(y - cy, x - cx) < 14 for cy, cx in places]).astype(np.float32)
    texture = np.random.default_rng(0).uniform(0.2, 0.4, (*size, 3)).astype(np.float32)
    images = texture + 0.5 * blobs[..., None] * np.array([1, 0.3, 0], np.float32)
    masks = jnp.array(np.stack([1 - blobs, blobs], axis=-1))
    clip = Clip(jnp.array(images)[None], masks[None], alive=jnp.ones((1, 2), bool))
    config = evolve(BASE, net={"encoder_width": 8, "key_width": 16, "value_width": 16, "decoder_widths": (32, 16, 16)},
                    memory={"rounds": 3})  # fmt: skip
    system = _system(config)
    variables = dict(jax.jit(system.init)(jax.random.key(0), clip))
    optimizer = optax.adam(3e-3)
    state = optimizer.init(variables["params"])

    @jax.jit
    def step(variables, state, number):
        def total(params):
            output = system.loss({**variables, "params": params}, clip, key=jax.random.key(number), step=number)
            return output.loss, output

        gradient, output = jax.grad(total, has_aux=True)(variables["params"])
        updates, state = optimizer.update(gradient, state)
        params = optax.apply_updates(variables["params"], updates)
        return {**variables, **output.model_state, "params": params}, state, output.scalars

    first = None
    for number in range(150):
        variables, state, scalars = step(variables, state, jnp.int32(number))
        first = scalars if first is None else first
    assert all(scalars[name] < 0.5 * first[name] for name in ("seg", "short"))
    found, _ = run(system, [Frame(x) for x in clip.images[0]], masks=masks[0], variables=variables)
    scores = [region_similarity(found[t, ..., 1] > 0.5, blobs[t] > 0.5) for t in (1, 2)]
    assert min(scores) > 0.9, scores
