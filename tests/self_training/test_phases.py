"""The phases of self-training: what a run leaves, that it may stop anywhere, and that each option matters.

Most of it with a stand-in for the nets, of which a step is compiled in a moment; the nets themselves once, and slowly.
"""

import dataclasses
import functools
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from jaxvos.data import UnlabelledVideo, unlabelled_batches
from jaxvos.errors import InputError
from jaxvos.models import load_model
from jaxvos.ops import resize
from jaxvos.self_training import (
    SelfTrainingConfig,
    _clusters,
    _phases,
    cluster_videos,
    learn_from_videos,
    small_net,
    small_recipe,
)
from jaxvos.system import LossOutput, System
from jaxvos.systems import ClusterConfig, Clusters, MaskVOSConfig
from jaxvos.training import OptimizerConfig, TrainingConfig, evolve, load_variables, read_log

RECIPE = SelfTrainingConfig(refresh=2, batch_size=2, size=(32, 32), crop=(0.9, 1.0), min_skip=1, max_skip=2)
TRAINING = TrainingConfig(num_steps=3, log_every=1, checkpoint_every=2, optimizer=OptimizerConfig(lr=0.1))
JOINT = evolve(TRAINING, num_steps=5)


def _videos(count=2, frames=8):
    """Cells of a colour each."""
    rng = np.random.default_rng(0)
    cells = [rng.integers(0, 255, (frames, 4, 4 + 2 * (i % 2), 3), np.uint8) for i in range(count)]
    return [UnlabelledVideo(f"video{i}", each.repeat(8, axis=1).repeat(8, axis=2)) for i, each in enumerate(cells)]


# ---- a stand-in for the nets -----------------------------------------------------------------------------------
def _features(variables, images):
    small = resize(images.reshape(-1, *images.shape[-3:]), (images.shape[-3] // 8, images.shape[-2] // 8))
    return small.reshape(*images.shape[:-3], *small.shape[1:]) @ variables["params"]["encoder"]["kernel"]


def _keys(config, variables, images):
    features = _features(variables, images)
    return features / jnp.linalg.norm(features, axis=-1, keepdims=True)


@functools.cache
def _stand_in(config):
    """A system with the parts of Mask-VOS, each of which has an influence where it has one there."""

    def init(key, clip):
        first, second, third, join, decoder = jax.random.normal(key, (5, 4, 4))
        value = {"encoder": {"kernel": second[:3]}, "mask_conv": {"kernel": third[:1]}}
        params = {"encoder": {"kernel": first[:3]}, "value": value, "join": {"kernel": join},
                  "decoder": {"kernel": decoder[:, :1]}}  # fmt: skip
        mean = {"mean": jnp.zeros(4)}
        return {"params": params, "batch_stats": {"encoder": mean, "value": {"encoder": mean}}}

    def loss(variables, clip, *, key, step):
        params, stats = variables["params"], variables["batch_stats"]
        features = _features(variables, clip.images)
        mean, state = stats["encoder"]["mean"], {}
        if config.objective.batch_norm:
            mean = features.mean(axis=(0, 1, 2, 3))
            state = {"batch_stats": {**stats, "encoder": {"mean": jax.lax.stop_gradient(mean)}}}
        features = features - mean + 0.1 * jax.random.normal(key, features.shape)
        scalars = {"near": jnp.mean((features[:, 1] - features[:, 0]) ** 2),
                   "far": jnp.mean((features[:, 2] - features[:, 0]) ** 2)}  # fmt: skip
        if clip.masks is not None:
            b, t, y, x, _ = features.shape
            masks = resize(clip.masks.reshape(b * t, *clip.masks.shape[2:]), (y, x)).reshape(b, t, y, x, -1)
            objects = (masks[..., 1:] * clip.alive[:, None, None, None, 1:]).sum(axis=-1, keepdims=True)
            value = features @ params["join"]["kernel"] + objects[:, :1] @ params["value"]["mask_conv"]["kernel"]
            value = jnp.tanh(value * params["value"]["encoder"]["kernel"].mean(axis=0))
            logits = value @ params["decoder"]["kernel"]
            scalars["seg"] = optax.sigmoid_binary_cross_entropy(logits, objects).mean()
        return LossOutput(sum(scalars.values()), state, scalars)

    return System(init, loss, lambda variables, memory, frame: (memory, None))


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setattr(_phases, "mask_vos", _stand_in)
    monkeypatch.setattr(_clusters, "mask_vos_keys", _keys)


@pytest.fixture
def rounds(monkeypatch):
    """What each clustering was given and gave."""
    seen = []

    def spy(key, videos, config, variables, clusters, *, previous=None, **options):
        found = cluster_videos(key, videos, config, variables, clusters, previous=previous, **options)
        seen.append((key, jax.device_get(variables), previous, found))
        return found

    monkeypatch.setattr(_phases, "cluster_videos", spy)
    return seen


def _learn(workdir, *, videos=None, system=None, variables=None, recipe=RECIPE, training=TRAINING, joint=JOINT):
    learned = learn_from_videos(_videos() if videos is None else videos, system or MaskVOSConfig(), recipe,
                                training=training, joint_training=joint, workdir=workdir, variables=variables,
                                progress=False)  # fmt: skip
    return jax.device_get(learned)


def _contents(workdir):
    """Clusters, and what was noted of them."""
    arrays = {path.name: dict(np.load(path)) for path in sorted(workdir.glob("clusters-*.npz"))}
    return arrays, json.loads((workdir / "health.json").read_text())


# ---- what a run is ---------------------------------------------------------------------------------------------
def test_what_a_run_leaves(stand_in, rounds, tmp_path):
    videos = _videos(3)
    _learn(tmp_path, videos=videos)
    assert [step for step, _ in read_log(tmp_path / "correspondence")["loss"]] == [1, 2, 3]
    assert "seg" not in read_log(tmp_path / "correspondence")
    assert [step for step, _ in read_log(tmp_path / "joint")["seg"]] == [1, 2, 3, 4, 5]
    for phase, steps in (("correspondence", 3), ("joint", 5)):
        assert (tmp_path / phase / "checkpoints" / str(steps)).is_dir()
    arrays, health = _contents(tmp_path)
    assert list(arrays) == [f"clusters-{number:03d}.npz" for number in range(3)] and len(rounds) == 3
    assert [noted["step"] for noted in health] == [0, 2, 4]
    changed = [[np.mean(new.labels != old) for new, old in zip(made, previous, strict=True)]
               for *_, previous, made in rounds[1:]]  # fmt: skip
    assert [noted["changed"] for noted in health] == [None, *map(np.mean, changed)]
    for found, noted, (*_, made) in zip(arrays.values(), health, rounds, strict=True):
        chex.assert_trees_all_equal([Clusters(*(found[f"{field}-{i}"] for field in Clusters._fields))
                                     for i in range(3)], made)  # fmt: skip
        kept = [each.kept.sum() for each in made]
        assert noted["videos"] == 3 and noted["without_kept"] == kept.count(0)
        assert noted["mean_kept"] == np.mean(kept)
        assert noted["mean_largest_share"] == pytest.approx(np.mean([each.shares.max() for each in made]))
    for number in range(3):
        with Image.open(tmp_path / f"clusters-{number:03d}.png") as sheet:
            assert sheet.width > 3 * 32


def test_clusters_are_made_again_by_what_was_learned_from_where_they_were(stand_in, rounds, tmp_path):
    _learn(tmp_path)
    (_, _, none, first), (key, variables, previous, second), _ = rounds
    assert none is None
    chex.assert_trees_all_equal(previous, [each.labels for each in first])
    chex.assert_trees_all_equal(key, jax.random.fold_in(jax.random.key(0), 1))
    stopped = _learn(tmp_path / "two", joint=evolve(JOINT, num_steps=2))
    chex.assert_trees_all_equal(variables, stopped)
    again = cluster_videos(key, _videos(), MaskVOSConfig(), stopped, ClusterConfig(), previous=previous, progress=False)
    chex.assert_trees_all_equal(again, second)
    afresh = cluster_videos(key, _videos(), MaskVOSConfig(), stopped, ClusterConfig(), progress=False)
    assert any((a.labels != b.labels).any() for a, b in zip(afresh, second, strict=True))


def test_fake_objects_are_the_kept_clusters(stand_in, rounds, monkeypatch, tmp_path):
    """The largest is 1, the next 2, and so on; the labels are those of the last clustering."""
    given = []

    def spy(videos, **options):
        given.append(videos)
        return unlabelled_batches(videos, **options)

    monkeypatch.setattr(_phases, "unlabelled_batches", spy)
    _learn(tmp_path, recipe=evolve(RECIPE, clusters={"max_share": 0.22}))
    assert len(given) == 4 and all(video.labels is None for video in given[0])
    dropped = 0
    for videos, (*_, found) in zip(given[1:], rounds, strict=True):
        for video, each in zip(videos, found, strict=True):
            order = [m for m in np.argsort(-each.shares, kind="stable") if each.kept[m]]
            expected = np.zeros(each.labels.shape, np.uint8)
            for number, cluster in enumerate(order, 1):
                expected[each.labels == cluster] = number
            np.testing.assert_array_equal(video.labels, expected)
            dropped += 5 - len(order)
    assert dropped


def test_the_first_phase_leaves_what_only_masks_teach(stand_in, tmp_path):
    """And the second begins the encoder of frames with masks as that of frames, and trains all."""
    only = {"recipe": evolve(RECIPE, phases="correspondence")}
    start = jax.device_get(_stand_in(MaskVOSConfig()).init(jax.random.key(7), None))
    after = _learn(tmp_path / "first", variables=start, **only)
    for part in ("value", "join", "decoder"):
        chex.assert_trees_all_equal(after["params"][part], start["params"][part])
    assert (after["params"]["encoder"]["kernel"] != start["params"]["encoder"]["kernel"]).any()
    assert (after["batch_stats"]["encoder"]["mean"] != 0).all()
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == ["correspondence", "correspondence.png"]
    slow = evolve(JOINT, optimizer={"lr": 1e-12, "weight_decay": 0.0})
    frames = {"params": {"encoder": start["params"]["encoder"]}}
    both = _learn(tmp_path / "both", variables=frames, joint=slow)
    chex.assert_trees_all_close(both["params"]["value"]["encoder"], after["params"]["encoder"], atol=1e-6)
    chex.assert_trees_all_close(both["params"]["value"]["mask_conv"]["kernel"], np.zeros((1, 4)), atol=1e-6)
    chex.assert_trees_all_equal(both["batch_stats"]["encoder"], after["batch_stats"]["encoder"])
    taught = _learn(tmp_path / "taught", variables=frames)
    changed = jax.tree.map(lambda a, b: bool((a != b).all()), taught["params"], both["params"])
    assert all(jax.tree.leaves(changed)), changed


def test_the_second_phase_alone(stand_in, tmp_path):
    """From variables, a part of them, or at random as the seed says."""
    start = jax.device_get(jax.jit(_stand_in(MaskVOSConfig()).init)(jax.random.key(0), None))
    joint = {"recipe": evolve(RECIPE, phases="joint")}
    learned = _learn(tmp_path / "random", **joint)
    assert not (tmp_path / "random" / "correspondence").exists()
    given = {**start, "params": {name: each for name, each in start["params"].items() if name != "value"}}
    chex.assert_trees_all_equal(_learn(tmp_path / "given", variables=given, **joint), learned)
    part = {"params": {"encoder": {"kernel": start["params"]["encoder"]["kernel"] + 1}}}
    other = _learn(tmp_path / "part", variables=part, **joint)
    assert (other["params"]["encoder"]["kernel"] != learned["params"]["encoder"]["kernel"]).any()


def test_an_encoder_of_frames_with_masks_that_has_learned_stays(stand_in, rounds, tmp_path):
    """Or adapting a run to other videos would begin by forgetting what masks mean."""
    first = _learn(tmp_path / "first")
    _learn(tmp_path / "second", variables=first)
    _learn(tmp_path / "third", variables={"params": {"encoder": first["params"]["encoder"]}})
    begun = [variables["params"]["value"]["mask_conv"]["kernel"] for _, variables, previous, _ in rounds
             if previous is None]  # fmt: skip
    np.testing.assert_array_equal(begun[1], first["params"]["value"]["mask_conv"]["kernel"])
    assert not begun[0].any() and begun[1].any() and not begun[2].any()


def test_encoders_of_two_kinds_begin_apart(stand_in, tmp_path):
    apart = evolve(MaskVOSConfig(), net={"value_encoder": "resnet50"})
    slow = evolve(JOINT, num_steps=1, optimizer={"lr": 1e-12, "weight_decay": 0.0})
    start = jax.device_get(_stand_in(apart).init(jax.random.key(7), None))
    both = _learn(tmp_path, system=apart, variables=start, joint=slow)
    chex.assert_trees_all_close(both["params"]["value"], start["params"]["value"], atol=1e-6)


# ---- a run that stops ------------------------------------------------------------------------------------------
class _Killed(Exception):
    """The end of the process, as far as its files can tell."""


@pytest.fixture
def dies(monkeypatch):
    """Makes a run end where a phase wants the batch of a step, or at a clustering."""

    def arm(place, number):
        def batches(videos, *, masks, **options):
            make = unlabelled_batches(videos, masks=masks, **options)

            def start(step):
                for index, clip in enumerate(make(step), step):
                    if place == ("joint" if masks else "correspondence") and index == number:
                        raise _Killed
                    yield clip

            return start

        def cluster(key, videos, *args, **options):
            if place == "clusters" and key == jax.random.fold_in(jax.random.key(0), number):
                raise _Killed
            return cluster_videos(key, videos, *args, **options)

        monkeypatch.setattr(_phases, "unlabelled_batches", batches)
        monkeypatch.setattr(_phases, "cluster_videos", cluster)

    return arm


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_phases, "mask_vos", _stand_in)
        patch.setattr(_clusters, "mask_vos_keys", _keys)
        workdir = tmp_path_factory.mktemp("whole")
        return _learn(workdir), _contents(workdir)


@pytest.mark.parametrize(
    ("place", "number", "made"),
    [("correspondence", 2, 3), ("clusters", 0, 3), ("joint", 1, 2), ("joint", 4, 0),
     *(pytest.param(*each, marks=pytest.mark.slow) for each in (
         ("joint", 0, 2), ("clusters", 1, 2), ("joint", 2, 1), ("joint", 3, 1)))],
)  # fmt: skip
def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(
    stand_in, dies, rounds, uninterrupted, tmp_path, monkeypatch, place, number, made
):
    spy = _phases.cluster_videos
    dies(place, number)
    with pytest.raises(_Killed):
        _learn(tmp_path)
    monkeypatch.setattr(_phases, "unlabelled_batches", unlabelled_batches)
    monkeypatch.setattr(_phases, "cluster_videos", spy)
    learned = _learn(tmp_path)
    assert len(rounds) == made  # those before are not made again
    chex.assert_trees_all_equal(learned, uninterrupted[0])
    chex.assert_trees_all_equal(_contents(tmp_path), uninterrupted[1])
    steps = [step for step, _ in read_log(tmp_path / "joint")["loss"]]
    assert steps == [1, 2, 3, 4, 5]


def test_a_run_may_be_made_longer_and_one_that_ended_is_not_trained_again(
    stand_in, rounds, uninterrupted, tmp_path, monkeypatch
):
    _learn(tmp_path, joint=evolve(JOINT, num_steps=3))
    chex.assert_trees_all_equal(_learn(tmp_path), uninterrupted[0])
    assert len(rounds) == 3
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("**/checkpoints/*")}
    chex.assert_trees_all_equal(_learn(tmp_path), uninterrupted[0])
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("**/checkpoints/*")} == before
    assert len(rounds) == 3


# ---- what is refused -------------------------------------------------------------------------------------------
def test_no_cluster_is_kept(stand_in, uninterrupted, tmp_path):
    """The remedy that is named helps, in the same folder."""
    with pytest.raises(InputError, match="all clusters of all 2 videos are dropped, larger than 0.05 of their video: "
                                         "raise clusters.max_share") as error:  # fmt: skip
        _learn(tmp_path, recipe=evolve(RECIPE, clusters={"max_share": 0.05}))
    assert "\n" not in str(error.value) and not (tmp_path / "joint").exists()
    assert json.loads((tmp_path / "health.json").read_text())[0]["without_kept"] == 2
    chex.assert_trees_all_equal(_learn(tmp_path), uninterrupted[0])


@pytest.mark.parametrize("others", [_videos(3), _videos(1), _videos(2, frames=6)], ids=["more", "fewer", "shorter"])
def test_other_videos_than_those_that_were_clustered(stand_in, tmp_path, others):
    _learn(tmp_path, joint=evolve(JOINT, num_steps=1))
    with pytest.raises(InputError, match="holds clusters of other videos: ") as error:
        _learn(tmp_path, videos=others)
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


@pytest.mark.parametrize(("changes", "words"), [
    ({"refresh": 0}, "refresh 0: want a step or more"), ({"size": (32, 36)}, "size 32x36: want multiples of 8"),
    ({"size": (8, 32)}, "size 8x32"),
])  # fmt: skip
def test_recipes_that_cannot_be(changes, words):
    with pytest.raises(InputError, match=words):
        SelfTrainingConfig(**changes)


# ---- options ---------------------------------------------------------------------------------------------------
OPTIONS = {
    "phases": "joint", "refresh": None, "batch_size": 1, "size": (32, 40), "crop": (0.5, 0.6), "num_objects": 1,
    "min_skip": 2, "max_skip": 5, "joint_batch_norm": True, "clusters": ClusterConfig(num_clusters=3),
}  # fmt: skip


def test_the_table_of_options_is_whole():
    assert set(OPTIONS) == {field.name for field in dataclasses.fields(SelfTrainingConfig)}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_changes_what_is_learned(stand_in, uninterrupted, tmp_path, name):
    changed = _learn(tmp_path, recipe=dataclasses.replace(RECIPE, **{name: OPTIONS[name]}))
    assert (changed["params"]["join"]["kernel"] != uninterrupted[0]["params"]["join"]["kernel"]).any()


def test_all_follows_from_the_seed_of_the_first_phase(stand_in, uninterrupted, tmp_path):
    chex.assert_trees_all_equal(_learn(tmp_path / "again"), uninterrupted[0])
    start = jax.device_get(jax.jit(_stand_in(MaskVOSConfig()).init)(jax.random.key(0), None))
    other = _learn(tmp_path / "other", training=evolve(TRAINING, seed=1), variables=start)
    assert (other["params"]["encoder"]["kernel"] != uninterrupted[0]["params"]["encoder"]["kernel"]).any()
    first, second = (np.load(tmp_path / name / "clusters-000.npz")["labels-0"] for name in ("again", "other"))
    assert (first != second).any()


def test_progress_is_said_or_not(stand_in, tmp_path, capsys):
    _learn(tmp_path / "quiet")
    assert capsys.readouterr().out == ""
    learn_from_videos(_videos(), MaskVOSConfig(), RECIPE, training=TRAINING, joint_training=JOINT,
                      workdir=tmp_path / "loud")  # fmt: skip
    out = capsys.readouterr().out
    assert "phase 1: correspondence" in out and "phase 2, clusters 2: " in out
    assert "kept of each video, none of 0 of 2; the largest has" in out


# ---- the small recipe ------------------------------------------------------------------------------------------
def test_small_recipes_grow_with_the_videos():
    for videos, steps in ((1, 150), (100, 800), (1000, 3000)):
        recipe, training, joint = small_recipe(videos)
        assert (training.num_steps, joint.num_steps, recipe.refresh) == (steps, steps, max(100, -(-steps // 3)))
    recipe, training, joint = small_recipe(9, steps=(7, 8), size=64, seed=3)
    assert (training.num_steps, joint.num_steps, recipe.size) == (7, 8, (64, 64))
    assert training.seed == joint.seed == 3 and joint.optimizer.schedule == "constant"
    assert small_net("resnet18").net.value_encoder == "resnet18" == small_net("resnet18").net.encoder


# ---- the nets themselves ---------------------------------------------------------------------------------------
@pytest.mark.slow
def test_the_tiny_net_in_both_phases(tiny_mask_vos, tmp_path):
    """A step of each is enough to see what moves."""
    model = load_model(tiny_mask_vos)
    start = jax.device_get(model.variables)
    step = evolve(TRAINING, num_steps=1)
    learned = _learn(tmp_path, system=model.config, variables=start, training=step, joint=step,
                     recipe=evolve(RECIPE, refresh=None))  # fmt: skip
    first = read_log(tmp_path / "correspondence")
    assert {"short", "long"} <= set(first) and "seg" not in first and "seg" in read_log(tmp_path / "joint")
    between = load_variables(tmp_path / "correspondence")[0]
    for part in ("value", "join", "decoder"):
        chex.assert_trees_all_equal(between["params"][part], start["params"][part])
        if part in start["batch_stats"]:
            chex.assert_trees_all_equal(between["batch_stats"][part], start["batch_stats"][part])
    moved = {part: _moved(learned["params"][part], between["params"][part]) for part in between["params"]}
    assert all(moved.values()), moved
    assert _moved(between["params"]["encoder"], start["params"]["encoder"])
    chex.assert_trees_all_equal(learned["batch_stats"]["encoder"], between["batch_stats"]["encoder"])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(learned))


def _moved(after, before):
    return any((a != b).any() for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(before), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(("place", "number"), [("correspondence", 1), ("joint", 1), ("clusters", 1), ("joint", 3)])
def test_a_run_of_the_tiny_net_that_was_stopped(tiny_mask_vos, dies, tmp_path, monkeypatch, place, number):
    config = load_model(tiny_mask_vos).config
    few = {"system": config, "training": evolve(TRAINING, num_steps=2), "joint": evolve(JOINT, num_steps=4)}
    whole = _learn(tmp_path / "whole", **few)
    dies(place, number)
    with pytest.raises(_Killed):
        _learn(tmp_path / "stopped", **few)
    monkeypatch.undo()
    chex.assert_trees_all_equal(_learn(tmp_path / "stopped", **few), whole)
    chex.assert_trees_all_equal(_contents(tmp_path / "stopped"), _contents(tmp_path / "whole"))
