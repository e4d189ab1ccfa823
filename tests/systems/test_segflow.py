"""SegFlow: shapes, what its branches exchange, what its losses say, and that every option matters."""

import dataclasses
import functools
import importlib.util
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvos.data import SyntheticConfig, synthetic_batch
from jaxvos.errors import InputError
from jaxvos.inference import fold, fold_clip
from jaxvos.nets import FlowNetS
from jaxvos.ops import resize
from jaxvos.system import Clip, Frame
from jaxvos.systems import NextFrameConfig, PairAugmentationConfig, SegFlowConfig, segflow
from jaxvos.systems._frame_pairs import augment_pair, take_pairs, to_pixels
from jaxvos.systems._segflow import _SegFlow
from jaxvos.training import OptimizerConfig, TrainingConfig, evolve, fit

STILL = PairAugmentationConfig(probability=0.0)
BASE = SegFlowConfig(backbone="resnet18", backbone_width=8, flow_width=2, input_size=(64, 64), augmentation=STILL,
                     skip_scale=(1.0, 1.0, 1.0))  # fmt: skip


@functools.cache
def _clip(num_frames=2):
    config = SyntheticConfig(height=64, width=64, num_frames=num_frames, num_objects=2, min_objects=2, flow_noise=0.0)
    return jax.tree.map(jnp.asarray, synthetic_batch(0, 1, config, batch_size=1))._replace(edges=None)


@functools.cache
def _variables(config):
    """Random variables, also where they start from zero, without compiling `init`."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if path[-1].key == "kernel":
            return jnp.asarray(rng.normal(0, np.prod(leaf.shape[:-1]) ** -0.5, leaf.shape), jnp.float32)
        return jnp.full(leaf.shape, float(path[-1].key in ("scale", "var", "skip_scale")))

    shapes = jax.eval_shape(segflow(config).init, jax.random.key(0), _clip())
    return jax.tree_util.tree_map_with_path(draw, shapes)


@functools.cache
def _loss(config):
    return jax.jit(functools.partial(segflow(config).loss, key=jax.random.key(1), step=0))


def _frame(index=0):
    clip = _clip(4)
    return Frame(clip.images[0, index], next_image=clip.images[0, index + 1])


def test_shapes_of_the_published_net():
    """The table of the sheet, at 480x854; nothing is computed."""
    images = jax.ShapeDtypeStruct((1, 480, 854, 3), jnp.float32)
    net = _SegFlow(SegFlowConfig())

    def look(method, *args):
        variables = jax.eval_shape(functools.partial(net.init, train=False), jax.random.key(0), images, images)
        return jax.eval_shape(functools.partial(net.apply, method=method), variables, *args)

    stages = look(lambda self, x: self._stages(x, train=False), images)
    assert {k: x.shape[1:] for k, x in stages.items()} == {3: (60, 107, 512), 4: (30, 54, 1024), 5: (15, 27, 2048)}
    pair = jax.ShapeDtypeStruct((1, 512, 896, 6), jnp.float32)
    levels = look(lambda self, x: self.flow_net.encode(x), pair)
    assert {k: x.shape[1:] for k, x in levels.items()} == {
        2: (128, 224, 128), 3: (64, 112, 256), 4: (32, 56, 512), 5: (16, 28, 512), 6: (8, 14, 1024)}  # fmt: skip
    decoded = jax.eval_shape(FlowNetS().init_with_output, jax.random.key(0), pair)[0]
    assert {k: x.shape[1:] for k, x in decoded.features.items()} == {
        5: (16, 28, 1026), 4: (32, 56, 770), 3: (64, 112, 386), 2: (128, 224, 194)}  # fmt: skip
    logits, flow, _ = look(lambda self, x, y: self(x, y, train=False), images, images)
    assert logits.shape == (1, 480, 854, 2) and flow.shape == (1, 480, 854, 2)


@pytest.mark.parametrize("inject", ["heads", "decoder"])
def test_at_first_the_flow_is_that_of_flownets(inject):
    """Bit for bit: what the other branch adds starts from zero, however large its features."""
    config = dataclasses.replace(BASE, inject=inject)
    net, flow_net = _SegFlow(config), FlowNetS(width=2)
    image, other = _clip().images[:, 0], _clip().images[:, 1]
    variables = jax.jit(functools.partial(net.init, train=False))(jax.random.key(0), image, other)
    found = jax.jit(functools.partial(net.apply, train=False))(variables, image, other)
    plain = {k: v for k, v in variables["params"]["flow_net"].items() if "extra" not in k}
    pair = jnp.concatenate([image, other], -1) - jnp.array([0.45, 0.432, 0.411] * 2)
    expected = jax.jit(flow_net.apply)({"params": plain}, pair).flows
    np.testing.assert_array_equal(found[1], to_pixels(expected[2], (64, 64)))
    assert jnp.abs(found[1]).max() > 0
    np.testing.assert_array_equal(found[0], jnp.zeros_like(found[0]))  # so do the masks


def test_both_branches_see_one_place_in_one_cell():
    """Resized, an impulse in the flow features lands where it does in those of the encoder; cut out, it is off."""
    place = jnp.zeros((1, 16, 28, 1)).at[0, 3, 4].set(1.0)
    like = jnp.zeros((1, 15, 27, 1))
    bound = lambda align: _SegFlow(SegFlowConfig(align=align)).bind({})  # noqa: E731
    where = {align: np.array(np.unravel_index(np.argmax(bound(align)._aligned(place, like, 1)), like.shape))
             for align in ("resize", "crop")}  # fmt: skip
    exact = np.array([0, 3.5 * 15 / 16 - 0.5, 4.5 * 27 / 28 - 0.5, 0])
    assert np.abs(where["resize"] - exact).max() <= 0.5 < np.abs(where["crop"] - exact).max()


OPTIONS = {
    "backbone": ["resnet34"], "backbone_width": [4], "flow_net": ["pwc_net_lite"], "flow_width": [4],
    "num_objects": [2],
    "fusion": ["release", "none"], "inject": ["decoder"], "flow_to_seg": [False], "seg_to_flow": [False],
    "skip_scale": [(0.1, 1.0, 1.0)], "learn_skip_scale": [True], "align": ["crop"], "input_size": [(64, 96)],
    "bn": ["train"], "class_balance": ["none"], "w_min": [0.9], "flow_loss": ["sq", "charbonnier"],
    "flow_multiscale": [True], "loss_reduction": ["sum"], "lambda_flow": [1.0],
    "next_frame": [{"method": "copy"}, {"rotation": 40.0}, {"shift": 0.5}, {"scale": (0.5, 0.6)}, {"hole": "mean"},
                   {"hole": "inpaint"}, {"background": 0.2}, {"elastic": 0.1}],
    "augmentation": [{"probability": 1.0}], "tta_flip": [True],
}  # fmt: skip


def test_the_table_of_options_is_complete():
    assert set(OPTIONS) == {field.name for field in dataclasses.fields(SegFlowConfig)}
    nested = {name for change in OPTIONS["next_frame"] for name in change}
    assert nested == {field.name for field in dataclasses.fields(NextFrameConfig)}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in OPTIONS.items() for value in values])
def test_every_option_changes_something(name, value):
    base = BASE
    if name == "align":
        base = evolve(base, input_size=(480, 854))
    config = evolve(base, **{name: value})
    if name == "learn_skip_scale":  # that it is learned: the test of gradients
        assert "skip_scale" in _variables(config)["params"] and "skip_scale" not in _variables(base)["params"]
        return
    if name in ("input_size", "tta_flip"):
        answers = [jax.jit(segflow(c).predict)(_variables(c), jnp.ones(2, bool), _frame())[1].masks
                   for c in (base, config)]  # fmt: skip
    else:
        clip = _clip()._replace(images=_clip().images[:, :1], masks=_clip().masks[:, :1], flow=None, valid=None) \
            if name == "next_frame" else _clip()  # fmt: skip
        if name == "align":
            grow = lambda x: None if x is None else resize(x, (480, 854))  # noqa: E731
            clip = clip._replace(images=grow(clip.images), masks=grow(clip.masks), flow=grow(clip.flow))
        answers = [_loss(c)(_variables(c), clip).loss for c in (base, config)]
    assert np.isfinite(answers[1]).all() and jnp.abs(answers[1] - answers[0]).max() > 1e-6


@pytest.mark.parametrize("change", [{"fusion": "paper", "inject": "decoder", "learn_skip_scale": True},
                                    {"fusion": "release"}])  # fmt: skip
def test_loss_and_gradients_are_finite_and_reach_every_parameter(change):
    config = evolve(BASE, bn="train", augmentation=PairAugmentationConfig(), **change)
    system, variables = segflow(config), _variables(config)

    def total(params):
        return system.loss({**variables, "params": params}, _clip(), key=jax.random.key(1), step=3).loss

    loss, gradient = jax.jit(jax.value_and_grad(total))(variables["params"])
    assert np.isfinite(loss)
    dead = [jax.tree_util.keystr(path) for path, leaf in jax.tree_util.tree_leaves_with_path(gradient)
            if not (np.isfinite(leaf).all() and np.abs(leaf).max() > 0)]  # fmt: skip
    if config.fusion == "release":  # its flow decoder's own predictions are dropped, those of level 2 altogether
        assert dead and all("predict_flow2" in name for name in dead)
    else:
        assert dead == []


@pytest.mark.slow
def test_what_a_clip_has_is_what_is_learned():
    clip, config = _clip(), BASE
    both, masks, flow = (_loss(config)(_variables(config), c) for c in (
        clip, clip._replace(flow=None), clip._replace(masks=None, alive=None)))  # fmt: skip
    assert float(both.loss) == pytest.approx(float(masks.loss + config.lambda_flow * flow.loss), rel=1e-5)
    assert set(masks.scalars) == {"mask_loss", "region_similarity"} and set(flow.scalars) == {"flow_loss", "epe"}
    with pytest.raises(ValueError, match="masks or from flow"):
        segflow(config).loss(_variables(config), Clip(clip.images), key=jax.random.key(0), step=0)


@pytest.mark.slow
def test_sum_and_mean_take_the_same_step():
    """With the learning rate times, and the decay divided by, the number of pixels (sheet 4.1)."""
    pixels = 64 * 64
    ends = []
    for reduction, factor in (("mean", 1.0), ("sum", 1.0 / pixels)):
        config = evolve(BASE, loss_reduction=reduction, flow_loss="sq")
        optimizer = OptimizerConfig(name="sgd", lr=1e-3 * factor, weight_decay=1e-2 / factor)
        training = TrainingConfig(num_steps=2, log_every=2, optimizer=optimizer)
        state = fit(segflow(config), lambda start: iter([_clip()] * 2), training, variables=_variables(BASE),
                    progress=False)  # fmt: skip
        ends.append(state.variables["params"])
    start = _variables(BASE)["params"]
    moved = jax.tree.map(lambda end, begin: np.abs(end - begin).max(), ends[0], start)
    assert max(jax.tree.leaves(moved)) > 1e-4
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), *ends)


@pytest.mark.parametrize(("frozen", "moving"), [
    ("flow_net", "encoder"), pytest.param("encoder|scores_.", "flow_net", marks=pytest.mark.slow)])  # fmt: skip
def test_a_frozen_branch_stays_bit_for_bit(frozen, moving):
    config = evolve(BASE, inject="decoder", bn="train")  # where masks reach the loss through the flow decoder, too
    training = TrainingConfig(num_steps=2, log_every=2, optimizer=OptimizerConfig(lr=1e-3, frozen=(frozen,)))
    state = fit(segflow(config), lambda start: iter([_clip()] * 2), training, variables=_variables(config),
                progress=False)  # fmt: skip
    before, after = _variables(config), state.variables
    parts = [name for name in before["params"] if name.startswith(tuple(frozen.replace(".", "").split("|")))]
    assert parts
    for name in parts:
        chex.assert_trees_all_equal(before["params"][name], after["params"][name])
    if frozen.startswith("encoder"):
        chex.assert_trees_all_equal(before["batch_stats"], after["batch_stats"])
    different = jax.tree.map(lambda a, b: np.abs(a - b).max(), before["params"][moving], after["params"][moving])
    assert max(jax.tree.leaves(different)) > 1e-4


def test_scan_equals_stream_with_one_trace():
    system, variables = segflow(BASE), _variables(BASE)
    counted = system._replace(predict=chex.assert_max_traces(system.predict, n=1))
    frames = [_frame(index) for index in range(3)]
    streamed = [p for _, p in fold(counted, variables, frames)]
    _, scanned = jax.jit(lambda f: fold_clip(system, variables, f))(jax.tree.map(lambda *x: jnp.stack(x), *frames))
    for index, prediction in enumerate(streamed):
        chex.assert_trees_all_close(prediction, jax.tree.map(lambda x, i=index: x[i], scanned), atol=1e-5)
    np.testing.assert_allclose(scanned.masks.sum(-1), 1.0, atol=1e-5)


def test_dead_slots_change_nothing():
    """Four slots for objects of which two are dead answer and learn as two do."""
    clip, prepare = _clip(), segflow(BASE).adaptation.prepare
    told = clip.masks[0, 0]
    wide = clip._replace(masks=jnp.pad(clip.masks, [(0, 0)] * 4 + [(0, 2)]),
                         alive=jnp.pad(clip.alive, ((0, 0), (0, 2))))  # fmt: skip
    (two, variables), (four, more) = prepare(_variables(BASE), 3), prepare(_variables(BASE), 5)
    share = more["params"]["scores_3"]["own"]["bias"].at[1:].add(jnp.log(2.0))  # of two in place of four
    head = more["params"]["scores_3"]
    more["params"]["scores_3"] = {**head, "own": {**head["own"], "bias": share}}
    answers = []
    for system, values, x in ((two, variables, clip), (four, more, wide)):
        memory = system.start(values, _frame(), x.masks[0, 0])
        assert memory.sum() == 1 + jnp.any(told[..., 1:] > 0, axis=(0, 1)).sum()
        loss = jax.jit(functools.partial(system.loss, key=jax.random.key(1), step=0))(values, x).loss
        answers.append((loss, jax.jit(system.predict)(values, memory, _frame())[1].masks))
    np.testing.assert_allclose(answers[0][0], answers[1][0], rtol=1e-5)
    np.testing.assert_allclose(answers[0][1], answers[1][1][..., :3], atol=1e-6)
    assert not answers[1][1][..., 3:].any()


def test_padding_frames_do_not_count():
    clip = _clip()
    extend = lambda x: jnp.concatenate([x, x[:, :1] * 0], axis=1)  # noqa: E731
    padded = clip._replace(images=extend(clip.images), masks=extend(clip.masks), flow=extend(clip.flow),
                           valid=jnp.array([[True, True, False]]))  # fmt: skip
    np.testing.assert_allclose(*(_loss(BASE)(_variables(BASE), c).loss for c in (clip, padded)), rtol=1e-5)


def test_several_objects_together_are_as_likely_as_the_one_was():
    system, variables = segflow(BASE), _variables(BASE)
    memory = jnp.ones(2, bool)
    one = jax.jit(system.predict)(variables, memory, _frame())[1].masks
    grown, more = system.adaptation.prepare(variables, 4)
    many = jax.jit(grown.predict)(more, jnp.ones(4, bool), _frame())[1].masks
    np.testing.assert_allclose(many[..., 1:].sum(-1), one[..., 1], atol=1e-5)


def test_the_mirrored_pair_gives_the_mirrored_masks():
    system = segflow(evolve(BASE, tta_flip=True))
    predict = jax.jit(system.predict)
    frame = _frame()
    mirrored = Frame(frame.image[:, ::-1], next_image=frame.next_image[:, ::-1])
    masks, other = (predict(_variables(BASE), jnp.ones(2, bool), f)[1].masks for f in (frame, mirrored))
    np.testing.assert_allclose(masks, other[:, ::-1], atol=1e-5)


def test_what_is_wrong_is_named():
    with pytest.raises(InputError, match="one scale"):
        segflow(SegFlowConfig(fusion="release", flow_multiscale=True))
    with pytest.raises(InputError, match="into FlowNetS"):
        segflow(SegFlowConfig(flow_net="pwc_net", inject="decoder"))
    with pytest.raises(InputError, match="480x854"):
        segflow(SegFlowConfig(align="crop", input_size=(64, 64)))
    with pytest.raises(ValueError, match="next_image"):
        segflow(BASE).predict(_variables(BASE), jnp.ones(2, bool), Frame(jnp.zeros((64, 64, 3))))


def test_the_step_is_traced():
    jax.eval_shape(lambda step: segflow(BASE).loss(_variables(BASE), _clip(), key=jax.random.key(0), step=step).loss,
                   jnp.int32(0))  # fmt: skip


def test_an_augmented_pair_agrees_with_its_flow(key):
    """A textured plane that moves by one vector: turned, grown and mirrored, the second still is the first, moved."""
    y, x = np.mgrid[:64, :96].astype(np.float32)
    field = lambda x, y: np.stack([np.sin(x / 5 + y / 9), np.cos(y / 6), np.sin((x - y) / 8)], -1) / 2 + 0.5  # noqa: E731
    clip = Clip(jnp.asarray(np.stack([field(x, y), field(x - 4, y - 2)]))[None],
                flow=jnp.broadcast_to(jnp.array([4.0, 2.0]), (1, 2, 64, 96, 2)))  # fmt: skip
    pair = jax.tree.map(lambda x: x[0], take_pairs(clip))
    config = PairAugmentationConfig(flip=1.0, rotation=30.0, scale=(1.3, 1.4), shift=0.05)
    moved = augment_pair(key, pair, config)
    from jaxvos.ops import warp

    known = np.isfinite(moved.flow).all(-1)
    known[:12], known[-12:], known[:, :12], known[:, -12:] = False, False, False, False
    back = warp(moved.next_image, jnp.nan_to_num(moved.flow))
    assert known.mean() > 0.3
    assert np.abs(back - moved.image)[known].max() < 0.06 < np.abs(moved.next_image - moved.image)[known].max()
    assert not np.allclose(moved.flow[known], [4.0, 2.0], atol=1.0)


@functools.cache
def _experiment(name):
    path = Path(__file__).resolve().parents[2] / "experiments" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"experiment_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_presets_build_at_full_size():
    """Shapes alone."""
    counts, clip = {}, Clip(jax.ShapeDtypeStruct((1, 2, 480, 854, 3), jnp.float32))  # the size of the released code
    for name, (_, preset) in _experiment("segflow").PRESETS.items():
        if name in ("paper", "release", "flo", "flow_to_seg", "lite", "tiny"):
            shapes = jax.eval_shape(segflow(preset.system).init, jax.random.key(0), clip)
            counts[name] = sum(int(np.prod(x.shape)) for x in jax.tree.leaves(shapes["params"]))
    assert 81e6 < counts["flo"] < counts["flow_to_seg"] < counts["paper"] < 82e6
    extra = 2 * (706 + 1410 + 2818) * 2 + 12 - 2 * (512 + 1024 + 2048) - 6  # both heads on both branches (sheet 2.3)
    assert counts["release"] - counts["flo"] == extra
    assert counts["tiny"] < counts["lite"] < 8e6
