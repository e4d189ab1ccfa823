"""Clusters of videos in a net's features are those of `cluster_video`, however many frames there are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvos.data import UnlabelledVideo
from jaxvos.models import load_model
from jaxvos.ops import resize
from jaxvos.self_training import cluster_frames, cluster_videos
from jaxvos.systems import ClusterConfig, cluster_video, mask_vos_keys

CONFIG = ClusterConfig(num_clusters=3)
_KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def model(tiny_mask_vos):
    return load_model(tiny_mask_vos)


def _scene(frames, height=32, width=40, seed=0):
    """Noise, in which a bright square and a dark one go to the right."""
    rng = np.random.default_rng(seed)
    film = rng.integers(100, 156, (frames, height, width, 3), np.uint8)
    for t in range(frames):
        film[t, 2:14, t : t + 14], film[t, 18:30, 20 - t : 34 - t] = 250, 5
    return film


def _by_hand(model, frames, *, size=None, previous=None):
    """Keys of one frame after another, clustered without any that does not count."""
    images = jnp.asarray(frames, jnp.float32) / 255
    images = images if size is None else resize(images, size)
    keys = jax.jit(lambda image: mask_vos_keys(model.config, model.variables, image[None])[0])
    features = jnp.stack([keys(image) for image in images])
    return cluster_video(_KEY, features, CONFIG, previous=previous)


def _cluster(model, frames, **options):
    return cluster_frames(_KEY, frames, model.config, model.variables, CONFIG, **options)


@pytest.mark.parametrize("frames", [5, 12, 14])
def test_the_number_of_frames_is_padded_and_changes_nothing(model, frames):
    film = _scene(frames)
    found, expected = _cluster(model, film), _by_hand(model, film)
    assert found.labels.shape == (frames, 4, 5) and len(np.unique(found.labels)) == 3
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_array_equal(found.kept, expected.kept)
    np.testing.assert_allclose(found.shares, expected.shares, rtol=1e-6)
    np.testing.assert_allclose(found.centers, expected.centers, atol=1e-4)


@pytest.mark.parametrize(("given", "used"), [((35, 44), (32, 48)), ((37, 36), (40, 32)), ((32, 40), (32, 40))])
def test_sides_become_multiples_of_eight(model, given, used):
    """The nearest, and of two as near the even one."""
    film = _scene(4, *given)
    found = _cluster(model, film)
    assert found.labels.shape == (4, used[0] // 8, used[1] // 8)
    np.testing.assert_array_equal(found.labels, _by_hand(model, film, size=used).labels)


def test_previous_labels_are_where_it_starts(model):
    film = _scene(5)
    rng = np.random.default_rng(1)
    starts = [rng.integers(0, 3, (5, 4, 5)).astype(np.int32) for _ in range(4)]
    found = [_cluster(model, film, previous=start) for start in starts]
    for start, each in zip(starts, found, strict=True):
        np.testing.assert_array_equal(each.labels, _by_hand(model, film, previous=jnp.asarray(start)).labels)
    assert any((each.labels != found[0].labels).any() for each in found[1:])


def test_each_video_by_itself(model, capsys):
    videos = [UnlabelledVideo(str(i), _scene(frames, seed=i)) for i, frames in enumerate((5, 12, 4))]
    previous = [np.zeros((len(video), 4, 5), np.int32) for video in videos]
    for given in (None, previous):
        found = cluster_videos(_KEY, videos, model.config, model.variables, CONFIG, previous=given)
        for index, (video, each) in enumerate(zip(videos, found, strict=True)):
            start = None if given is None else given[index]
            alone = cluster_frames(jax.random.fold_in(_KEY, index), video.frames, model.config, model.variables, CONFIG,
                                   previous=start)  # fmt: skip
            assert all(isinstance(field, np.ndarray) for field in each)
            jax.tree.map(np.testing.assert_array_equal, each, alone)
    assert capsys.readouterr().err == ""  # no bar where nobody looks


@pytest.mark.parametrize("shown", [True, False])
def test_the_bar(model, shown, monkeypatch, capsys):
    import sys

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    videos = [UnlabelledVideo("film", _scene(5))]
    cluster_videos(_KEY, videos, model.config, model.variables, CONFIG, progress=shown)
    assert ("clustering" in capsys.readouterr().err) == shown
