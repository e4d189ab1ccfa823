"""What DMM-Net and Mask R-CNN promise as systems, over the presets of their experiments, at test size."""

import dataclasses
import functools
import importlib.util
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvos.data import JitterConfig, ObjectDataConfig, SyntheticConfig, object_batches
from jaxvos.inference import fold, fold_clip
from jaxvos.system import Frame
from jaxvos.systems import DMMNetConfig, FrameAugmentationConfig, MatchingConfig, dmm_net, mask_rcnn
from jaxvos.training import evolve

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
SIZE = (64, 96)


@functools.cache
def _presets(name):
    spec = importlib.util.spec_from_file_location(f"experiment_{name}", EXPERIMENTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {preset: config.system for preset, (_, config) in module.PRESETS.items()}


STILL = FrameAugmentationConfig(flip=0.0, rotation=0.0, shift=0.0, shear=0.0, scale=(1.0, 1.0))
BASE = evolve(_presets("dmm_net")["tiny"], matching={"num_grad": 3, "num_proj": 2}, own_masks=0.0, augmentation=STILL)


@functools.cache
def _clip():
    synthetic = SyntheticConfig(min_objects=2, min_area=0.1, distractors=0)
    config = ObjectDataConfig(batch_size=1, size=SIZE, num_frames=2, num_objects=2, synthetic=synthetic,
                              jitter=JitterConfig(num_proposals=6))  # fmt: skip
    batches = object_batches(config, seed=1)[0](0)
    clip = jax.tree.map(jnp.asarray, next(batches))
    batches.close()
    return clip


def _first(clip):
    """One frame of a clip: half of what there is to compile."""
    return jax.tree.map(lambda x: x[:, :1], clip._replace(alive=None))._replace(alive=clip.alive)


@functools.cache
def _shapes(config):
    """Parameters of configurations that differ in a few options alone are traced once."""
    return jax.eval_shape(dmm_net(config).init, jax.random.key(0), _clip())


def _draw(shapes):
    """Random variables without compiling `init`, which would cost more than what is tested with them."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        match path[-1].key:
            case "scale" | "var":
                return jnp.ones(leaf.shape)
            case "bias" | "mean":
                return jnp.zeros(leaf.shape)
            case _:
                return jnp.asarray(rng.standard_normal(leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1])), jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


@functools.cache
def _variables(config):
    return _draw(_shapes(config))


@pytest.mark.parametrize(("script", "build"), [("dmm_net", dmm_net), ("mask_rcnn", mask_rcnn)])
def test_presets_build_at_full_size(script, build):
    """Shapes alone, nothing is computed; presets that differ in their matching are one net."""
    counts, presets = {}, _presets(script)
    if script == "dmm_net":
        presets = {evolve(config, matching=MatchingConfig()): name for name, config in reversed(presets.items())}
        presets = {name: config for config, name in presets.items()}
    for name, config in presets.items():
        shapes = jax.eval_shape(build(config).init, jax.random.key(0), _clip())
        counts[name] = sum(int(np.prod(x.shape)) for x in jax.tree.leaves(shapes["params"]))
    if script == "dmm_net":
        assert 25e6 < counts["youtube_vos"] < 40e6 < counts["plus"] and counts["davis"] > 70e6
        assert counts["greedy"] < counts["youtube_vos"] < counts["released"] and counts["lite"] < 6e6
    else:
        assert counts["coco"] > 55e6 and counts["lite"] < 8e6


def _shrink(config):
    """A preset's own way of refining, on the net of the tests; its matching: tests/systems/test_dmm_matching.py."""
    fusion = "average" if config.recurrence == "rvos" else "stack"  # each of them once: as released and as printed
    return evolve(BASE, bn="train", refiner=config.refiner, recurrence=config.recurrence, mask_fusion=fusion)


VARIANTS = {_shrink(config): name for name, config in reversed(_presets("dmm_net").items())}


def test_presets_refine_in_every_way():
    assert {(config.refiner, config.recurrence) for config in VARIANTS} == {
        ("none", "temporal"), ("light", "temporal"), ("light", "rvos"), ("heavy", "temporal")}  # fmt: skip


@pytest.mark.parametrize("config", [
    pytest.param(config, id=name, marks=[] if name == "youtube_vos" else pytest.mark.slow)
    for config, name in VARIANTS.items()
])
def test_loss_and_gradients_are_finite_and_reach_every_parameter(config):
    """Of DMM-Net; of Mask R-CNN: tests/systems/test_mask_rcnn.py, where its options are, too."""
    system, variables = dmm_net(config), _variables(config)
    clip = _clip() if config.refiner == "light" else _first(_clip())  # the others keep nothing from frame to frame

    def total(params):
        return system.loss({**variables, "params": params}, clip, key=jax.random.key(1), step=jnp.int32(3)).loss

    loss, gradient = jax.jit(jax.value_and_grad(total))(variables["params"])
    assert np.isfinite(loss)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        assert np.isfinite(leaf).all() and jnp.abs(leaf).max() > 0, f"{name} gets no gradient"


# option of the system's own config: values that must each change something
OPTIONS = {
    "backbone": ["resnet34"],
    "backbone_width": [4],
    "input_size": [(64, 64)],
    "match_width": [4],
    "roi_size": [1],
    "matching": [{"iou_weight": 0.9}],  # its own options: tests/systems/test_dmm_matching.py
    "template_update": [0.9],
    "refiner": ["light"],
    "skip_widths": [(4, 4, 4, 4)],
    "light_widths": [(4, 4, 4, 4)],
    "mask_fusion": ["stack"],
    "recurrence": ["rvos"],
    "heavy_width": [4],
    "iou_source": ["matched"],
    "slots": [],  # how many objects are refined at once: memory, not the answer (below)
    "refined_weight": [0.5],
    "matched_weight": [0.5],
    "similarity_weight": [0.5],
    "entropy_weight": [2.0],
    "own_masks": [1.0],
    "own_masks_from": [10],
    "bn": ["train"],
    "augmentation": [{"flip": 1.0}, {"rotation": 30.0}, {"shift": 0.3}, {"shear": 20.0}, {"scale": (0.5, 0.6)}],
}
PREDICTION = {"input_size", "template_update", "iou_source"}  # act where frames are predicted; the others on the loss
OVER_TIME = {"own_masks", "own_masks_from"}  # need a second frame
REFINER = {"heavy_width": "heavy"} | dict.fromkeys(  # without one there is less to compile
    ("skip_widths", "light_widths", "mask_fusion", "recurrence", "iou_source"), "light")  # fmt: skip


def test_the_table_of_options_is_complete():
    assert set(OPTIONS) == {field.name for field in dataclasses.fields(DMMNetConfig)}
    changed = {name for value in OPTIONS["augmentation"] for name in value}
    assert changed == {field.name for field in dataclasses.fields(FrameAugmentationConfig)}


def _frames(count=3):
    """Two frames of the clip in turn."""
    pick = jnp.arange(count) % 2
    return Frame(_clip().images[0, pick], proposals=jax.tree.map(lambda x: x[0, pick], _clip().proposals))


@functools.cache
def _folded(config):
    system = dmm_net(config)
    return jax.jit(lambda variables, frames, masks: fold_clip(system, variables, frames, masks=masks)[1].masks)


@functools.cache
def _loss(config):
    system = dmm_net(config)
    return jax.jit(lambda variables, clip: system.loss(variables, clip, key=jax.random.key(1), step=0).loss)


def _answer(config, name):
    if name in PREDICTION:
        return _folded(config)(_variables(config), _frames(), _clip().masks[0, 0])
    clip = _clip() if name in OVER_TIME else _first(_clip())
    return _loss(config)(_variables(config), clip)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in OPTIONS.items() for value in values])
def test_every_option_changes_something(name, value):
    base = evolve(BASE, refiner=REFINER.get(name, "none"))
    if name in ("template_update", "iou_source"):
        base = evolve(base, matching={"test_method": "pgd", "test_keep": "all", "null_score": None})
    if name == "own_masks_from":
        base = evolve(base, own_masks=1.0)
    before, after = (_answer(config, name) for config in (base, evolve(base, **{name: value})))
    assert np.isfinite(after).all() and jnp.abs(after - before).max() > 1e-6


def test_slots_are_memory_alone():
    """Four objects, three at a time and all at once."""
    told = _clip().masks[0, 0]
    masks = jnp.concatenate([told, jnp.roll(told[..., 1:], 20, axis=1)], axis=-1)
    assert BASE.slots >= 4
    answers = [_folded(c)(_variables(BASE), _frames(), masks) for c in (BASE, evolve(BASE, slots=3))]
    np.testing.assert_allclose(*answers, atol=1e-5)


def test_dead_slots_change_nothing():
    clip, variables = _clip(), _variables(BASE)
    padded = clip._replace(
        masks=jnp.pad(clip.masks, [(0, 0)] * 4 + [(0, 2)]), alive=jnp.pad(clip.alive, ((0, 0), (0, 2)))
    )
    losses = [_loss(BASE)(variables, _first(c)) for c in (clip, padded)]
    np.testing.assert_allclose(*losses, rtol=1e-6)
    found = [_folded(BASE)(variables, _frames(), c.masks[0, 0]) for c in (clip, padded)]
    np.testing.assert_allclose(found[1][..., :3], found[0], atol=1e-6)
    assert not found[1][..., 3:].any()


def test_scan_equals_stream_with_one_trace():
    system, variables, masks = dmm_net(BASE), _variables(BASE), _clip().masks[0, 0]
    counted = system._replace(predict=chex.assert_max_traces(system.predict, n=1))
    one_by_one = [jax.tree.map(lambda x, i=i: x[i], _frames()) for i in range(3)]
    streamed = [p.masks for _, p in fold(counted, variables, one_by_one, masks=masks)]
    scanned = _folded(BASE)(variables, _frames(), masks)
    np.testing.assert_allclose(jnp.stack(streamed), scanned, atol=1e-5)
    np.testing.assert_array_equal(jnp.argmax(scanned[0], axis=-1), jnp.argmax(masks, axis=-1))  # as it was told


def test_scan_equals_stream_with_one_trace_for_what_proposes():
    system = mask_rcnn(_presets("mask_rcnn")["tiny"])
    variables = _draw(jax.eval_shape(system.init, jax.random.key(0), _clip()))
    counted = system._replace(predict=chex.assert_max_traces(system.predict, n=1))
    images = _clip().images[0]
    streamed = [p for _, p in fold(counted, variables, map(Frame, images))]
    _, scanned = jax.jit(lambda f: fold_clip(system, variables, f))(Frame(images))
    for index, prediction in enumerate(streamed):
        assert prediction.proposals.valid.any()
        chex.assert_trees_all_close(prediction, jax.tree.map(lambda x, i=index: x[i], scanned), atol=1e-4)


@pytest.mark.parametrize("script", ["dmm_net", "mask_rcnn"])
def test_the_step_is_traced(script):
    """A Python branch on it would raise here."""
    tiny = _presets(script)["tiny"]
    system = mask_rcnn(tiny) if script == "mask_rcnn" else dmm_net(evolve(tiny, own_masks=0.5, own_masks_from=7))
    variables = jax.eval_shape(system.init, jax.random.key(0), _clip())

    def loss(variables, step):
        return system.loss(variables, _clip(), key=jax.random.key(1), step=step).loss

    assert jax.eval_shape(loss, variables, jnp.int32(0)).shape == ()


def test_the_default_matches_softly_in_training_and_wholly_in_prediction():
    assert (MatchingConfig().train_method, MatchingConfig().test_method) == ("pgd", "hungarian")
