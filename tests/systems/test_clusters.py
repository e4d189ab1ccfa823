"""Clusters of videos whose objects are known, against scikit-learn; and what is drawn of them: masks and a sheet."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvos.drawing import overlay
from jaxvos.errors import InputError
from jaxvos.results import cluster_sheet
from jaxvos.systems import ClusterConfig, Clusters, cluster_masks, cluster_video
from jaxvos.training import evolve

_cluster = jax.jit(cluster_video, static_argnames="config")
_KEY = jax.random.key(0)
_T, _Y, _X, _C = 4, 10, 12, 12


@functools.cache
def _scene(seed=0, cosine=0.5, noise=0.5, objects=3):
    """Features of moving ellipses over one background, with a prototype each; and what every cell belongs to."""
    rng = np.random.default_rng(seed)
    base, *others = np.linalg.qr(rng.normal(size=(_C, objects + 1)))[0].T
    prototypes = np.stack([base, *(cosine * base + (1 - cosine**2) ** 0.5 * other for other in others)])
    rows, columns = np.mgrid[:_Y, :_X]
    truth = np.zeros((_T, _Y, _X), int)
    for index, column in enumerate(np.linspace(2, _X - 3, objects), 1):
        place, speed = (rng.uniform(3, _Y - 4), column), rng.uniform(-0.7, 0.7, 2)
        for t in range(_T):
            i, j = place + t * speed
            truth[t][((rows - i) / 3) ** 2 + ((columns - j) / 1.6) ** 2 < 1] = index
    features = prototypes[truth] + noise * rng.normal(size=(*truth.shape, _C)) / _C**0.5
    return jnp.asarray(features, jnp.float32), truth


def _object_iou(truth, clusters):
    """The mean, over true objects, of the best IoU with a kept cluster."""
    labels, kept = np.asarray(clusters.labels), np.flatnonzero(clusters.kept)
    best = []
    for index in range(1, truth.max() + 1):
        there = truth == index
        overlaps = [((labels == m) & there).sum() / ((labels == m) | there).sum() for m in kept]
        best.append(max(overlaps, default=0.0))
    return np.mean(best)


def _assert_same_partition(first, second, parts):
    pairs = {*zip(np.ravel(first).tolist(), np.ravel(second).tolist(), strict=True)}
    assert len(pairs) == len(np.unique(first)) == len(np.unique(second)) == parts


def _given(labels, shares, kept):
    return Clusters(jnp.asarray(labels, jnp.int32), jnp.asarray(kept), jnp.asarray(shares, jnp.float32),
                    jnp.zeros((len(kept), 2)))  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_kmeans_of_easy_features_is_scikit_learns(seed):
    cluster = pytest.importorskip("sklearn.cluster")
    features, truth = _scene(seed, noise=0.1)
    clusters = _cluster(_KEY, features, ClusterConfig(num_clusters=4, position="none"))
    unit = np.asarray(features).reshape(-1, _C)
    theirs = cluster.KMeans(4, n_init=10, random_state=0).fit(unit / np.linalg.norm(unit, axis=1, keepdims=True))
    _assert_same_partition(clusters.labels, theirs.labels_, 4)
    _assert_same_partition(clusters.labels, truth, 4)
    order = [theirs.labels_[np.ravel(clusters.labels) == m][0] for m in range(4)]
    np.testing.assert_allclose(clusters.centers, theirs.cluster_centers_[order], atol=1e-5)
    np.testing.assert_allclose(clusters.shares, np.bincount(theirs.labels_)[order] / truth.size, rtol=1e-6)


def test_learned_transport_of_little_entropy_is_kmeans():
    features, _ = _scene()
    base = ClusterConfig(num_clusters=4)
    expected = _cluster(_KEY, features, base)
    soft = _cluster(_KEY, features, evolve(base, method="ot", epsilon=1e-5))
    np.testing.assert_array_equal(soft.labels, expected.labels)
    np.testing.assert_allclose(soft.centers, expected.centers, atol=1e-4)


def test_learned_transport_keeps_a_background_whole_that_kmeans_cuts():
    features, truth = _scene(cosine=0.7, noise=0.3)
    cut = _cluster(_KEY, features, ClusterConfig())
    whole = _cluster(_KEY, features, ClusterConfig(method="ot"))
    assert cut.kept.sum() == 5  # no part of the background is too large
    assert whole.kept.sum() == 3
    np.testing.assert_allclose(whole.shares.max(), (truth == 0).mean(), atol=0.02)
    _assert_same_partition(whole.labels, truth, 4)


def test_places_as_printed_are_not_the_default():
    """Sines and cosines of norm 8 beside features of norm 1 leave clusters of place."""
    default = ClusterConfig()
    literal = evolve(default, position="add", position_weight=8.0)
    for seed in range(3):
        features, truth = _scene(seed)
        ours, theirs = (_object_iou(truth, _cluster(_KEY, features, config)) for config in (default, literal))
        assert ours > 0.9 and theirs < 0.4, (ours, theirs)


def test_the_code_of_places_has_the_norm_that_is_asked_for():
    features, _ = _scene()
    zero = jnp.zeros_like(features)
    one = {"num_clusters": 240, "num_iters": 1, "num_restarts": 1}  # of half as many cells, so that some are alone
    code = _cluster(_KEY, zero[:2], ClusterConfig(position_weight=0.7, **one))
    assert code.centers.shape == (240, _C + 126)
    np.testing.assert_allclose(jnp.linalg.norm(code.centers, axis=1).max(), 0.7, rtol=1e-5)
    np.testing.assert_array_equal(code.centers[:, :_C], 0)
    added = _cluster(_KEY, zero[:2], ClusterConfig(position_weight=0.7, position="add", **one))
    assert added.centers.shape == (240, _C)
    np.testing.assert_allclose(jnp.linalg.norm(added.centers, axis=1).max(), 0.7, rtol=1e-5)


def test_without_weight_places_do_not_matter():
    features, _ = _scene()
    none = _cluster(_KEY, features, ClusterConfig(position="none"))
    for position in ("concat", "add"):
        nothing = _cluster(_KEY, features, ClusterConfig(position=position, position_weight=0.0))
        np.testing.assert_array_equal(nothing.labels, none.labels)


def test_the_scale_of_features_does_not_matter():
    features, _ = _scene()
    plain, scaled = (_cluster(_KEY, factor * features, ClusterConfig()) for factor in (1.0, 32.0))
    np.testing.assert_array_equal(scaled.labels, plain.labels)
    half = _cluster(_KEY, features.astype(jnp.bfloat16), ClusterConfig())
    assert half.centers.dtype == jnp.float32


def test_adding_places_needs_channels_for_them():
    for channels in (4, 11):
        with pytest.raises(InputError, match="position='concat'"):
            cluster_video(_KEY, jnp.ones((2, 3, 4, channels)), ClusterConfig(position="add"))
    assert _cluster(_KEY, jnp.ones((2, 3, 4, 11)), ClusterConfig()).centers.shape == (5, 11 + 126)


def test_large_clusters_and_empty_ones_are_not_kept():
    features, truth = _scene(noise=0.0)
    config = ClusterConfig(num_clusters=4, position="none")
    clusters = _cluster(_KEY, features, config)
    shares = np.bincount(truth.ravel()) / truth.size
    np.testing.assert_allclose(np.sort(clusters.shares), np.sort(shares), rtol=1e-6)
    np.testing.assert_array_equal(clusters.kept, clusters.shares < 0.4)
    assert clusters.kept.sum() == 3
    assert _cluster(_KEY, features, evolve(config, max_share=1.0)).kept.all()
    second = float(np.sort(clusters.shares)[-2])
    fewer = _cluster(_KEY, features, evolve(config, max_share=second - 1e-3))
    assert fewer.kept.sum() == 3 - (clusters.shares == second).sum()
    more = _cluster(_KEY, features, evolve(config, num_clusters=6))  # of four distinct features
    assert (more.shares == 0).sum() == 2 and not more.kept[more.shares == 0].any()
    np.testing.assert_allclose(more.shares.sum(), 1, rtol=1e-6)


@pytest.mark.parametrize("method", ["kmeans", "ot"])
def test_no_cluster_may_be_kept(method):
    features, _ = _scene()
    clusters = _cluster(_KEY, features, ClusterConfig(num_clusters=2, method=method, max_share=0.2))
    assert not clusters.kept.any()
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in clusters)
    assert not cluster_masks(clusters, size=(20, 24)).any()


@pytest.mark.parametrize("method", ["kmeans", "ot"])
def test_frames_that_do_not_count_change_nothing(method):
    features, _ = _scene()
    config = ClusterConfig(method=method)
    plain = _cluster(_KEY, features, config)
    valid = jnp.arange(_T + 2) < _T
    for garbage in (jnp.nan, jnp.inf, 7.0):
        padded = jnp.concatenate([features, jnp.full((2, _Y, _X, _C), garbage)])
        clusters = _cluster(_KEY, padded, config, valid=valid)
        np.testing.assert_array_equal(clusters.labels[:_T], plain.labels)
        np.testing.assert_array_equal(clusters.kept, plain.kept)
        np.testing.assert_allclose(clusters.shares, plain.shares, rtol=1e-6)
        np.testing.assert_allclose(clusters.centers, plain.centers, atol=1e-5)
        assert clusters.labels.shape == (_T + 2, _Y, _X) and (clusters.labels < 5).all()
        again = _cluster(_KEY, padded, config, valid=valid, previous=clusters.labels)
        assert jnp.isfinite(again.centers).all()
    counted = _cluster(_KEY, padded, config, valid=jnp.ones(_T + 2, bool))
    assert jnp.abs(jnp.sort(counted.shares) - jnp.sort(plain.shares)).max() > 0.01
    nothing = _cluster(_KEY, padded, config, valid=jnp.zeros(_T + 2, bool))
    assert (nothing.shares == 0).all() and not nothing.kept.any() and jnp.isfinite(nothing.centers).all()


@pytest.mark.parametrize("config", [ClusterConfig(num_clusters=4), ClusterConfig(method="ot")], ids=["kmeans", "ot"])
def test_previous_labels_are_where_it_starts(config):
    features, truth = _scene(cosine=0.7, noise=0.3)
    clusters = _cluster(_KEY, features, config)
    again = _cluster(jax.random.key(1), features, evolve(config, num_iters=1), previous=clusters.labels)
    np.testing.assert_array_equal(again.labels, clusters.labels)
    renamed = (clusters.labels + 1) % config.num_clusters
    others = _cluster(_KEY, features, evolve(config, num_iters=1), previous=renamed)
    np.testing.assert_array_equal(others.labels, renamed)
    _assert_same_partition(others.labels, clusters.labels, len(np.unique(clusters.labels)))
    few = _cluster(_KEY, features, config, previous=jnp.asarray(np.where(truth == 3, 250, truth), jnp.int32))
    assert jnp.isfinite(few.centers).all() and _object_iou(truth, few) > 0.9  # from no cells of the third


def test_a_label_without_cells_begins_at_the_mean():
    features, truth = _scene(noise=0.0, objects=2)
    labels = jnp.asarray(np.where(truth == 1, 1, 0), jnp.int32)
    config = ClusterConfig(num_clusters=3, position="none", num_iters=1)
    clusters = _cluster(_KEY, features, config, previous=labels)
    unit = features / jnp.linalg.norm(features, axis=-1, keepdims=True)
    starts = jnp.stack([unit[labels == 0].mean(0), unit[labels == 1].mean(0), unit.mean((0, 1, 2))])
    first = ((unit[..., None, :] - starts) ** 2).sum(-1).argmin(-1)
    expected = jnp.stack([unit[first == m].mean(0) for m in range(3)])
    np.testing.assert_allclose(clusters.centers, expected, atol=1e-5)


def test_videos_side_by_side_are_one_by_one():
    features = jnp.stack([_scene(seed)[0] for seed in range(3)])
    keys, valid = jax.random.split(_KEY, 3), jnp.ones((3, _T), bool).at[1, 2:].set(False)
    together = jax.jit(jax.vmap(lambda key, x, v: cluster_video(key, x, valid=v)))(keys, features, valid)
    masks = jax.vmap(lambda clusters: cluster_masks(clusters, size=(20, 24)))(together)
    for index in range(3):
        alone = _cluster(keys[index], features[index], ClusterConfig(), valid=valid[index])
        np.testing.assert_array_equal(together.labels[index][valid[index]], alone.labels[valid[index]])
        np.testing.assert_array_equal(together.kept[index], alone.kept)
        np.testing.assert_allclose(together.shares[index], alone.shares, rtol=1e-6)
        drawn = cluster_masks(alone, size=(20, 24))
        np.testing.assert_array_equal(masks[index][valid[index]], drawn[valid[index]])


def test_the_same_again_for_the_same_key():
    features, _ = _scene(noise=1.5)
    first, second = (_cluster(_KEY, features, ClusterConfig()) for _ in range(2))
    for ours, theirs in zip(first, second, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert (_cluster(jax.random.key(1), features, ClusterConfig()).labels != first.labels).any()


@pytest.mark.parametrize(
    ("method", "change"),
    [
        ("kmeans", {"num_clusters": 6}),
        ("kmeans", {"method": "ot"}),
        ("ot", {"marginals": "balanced"}),
        ("ot", {"marginals": "box"}),
        ("ot", {"epsilon": 0.2}),
        ("kmeans", {"num_iters": 1}),
        ("kmeans", {"num_restarts": 1}),
        ("ot", {"num_restarts": 1}),
        ("kmeans", {"position": "add"}),
        ("kmeans", {"position": "none"}),
        ("kmeans", {"position_weight": 2.0}),
        ("kmeans", {"max_share": 0.2}),
    ],
    ids=str,
)
def test_every_option_matters(method, change):
    features, _ = _scene(2, noise=1.5)
    base = ClusterConfig(method=method)
    plain, changed = (_cluster(_KEY, features, config) for config in (base, evolve(base, **change)))
    if "max_share" in change:
        assert (plain.kept != changed.kept).any() and (plain.labels == changed.labels).all()
    else:
        assert (plain.labels != changed.labels).any()


@pytest.mark.parametrize(
    "wrong",
    [{"num_clusters": 1}, {"num_clusters": 256}, {"method": "ot", "marginals": "box", "num_clusters": 51},
     {"epsilon": 0.0}, {"num_iters": 0}, {"num_restarts": 0}, {"position_weight": -1.0}, {"max_share": 0.0},
     {"max_share": 1.1}],
    ids=str,
)  # fmt: skip
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(InputError, match="want"):
        ClusterConfig(**wrong)
    if wrong == {"method": "ot", "marginals": "box", "num_clusters": 51}:
        ClusterConfig(num_clusters=51)


def test_masks_number_the_kept_from_the_largest_on():
    labels = np.zeros((2, 4, 6))
    labels[:, :2, :3], labels[:, 2:, 3:], labels[1, 0, 5] = 1, 2, 3
    clusters = _given(labels, [0.5, 0.15, 0.25, 0.1], [False, True, True, True])
    masks = cluster_masks(clusters, size=(4, 6))
    assert masks.dtype == jnp.uint8
    np.testing.assert_array_equal(masks, np.array([0, 2, 1, 3])[labels.astype(int)])
    np.testing.assert_array_equal(cluster_masks(clusters, size=(4, 6), frame=1), masks[1])
    fewer = cluster_masks(clusters._replace(kept=jnp.array([False, True, False, True])), size=(4, 6))
    np.testing.assert_array_equal(fewer, np.array([0, 1, 0, 2])[labels.astype(int)])


def test_masks_are_resized_as_probabilities():
    """Between clusters 1 and 3 there is no 2; what is dropped is one background; corners are rounded."""
    labels = np.zeros((1, 4, 4))
    labels[:, :, 2:] = 2
    clusters = _given(labels, [0.3, 0.25, 0.2], [True, True, True])
    large = np.asarray(cluster_masks(clusters, size=(32, 32)))[0]
    np.testing.assert_array_equal(large, np.where(np.arange(32) < 16, 1, 3) * np.ones((32, 1)))
    labels[:, 1:3, 1:3] = 1
    dropped = np.asarray(cluster_masks(_given(labels, [0.5, 0.2, 0.3], [False, True, False]), size=(32, 32)))[0]
    np.testing.assert_array_equal(dropped, dropped[::-1])
    np.testing.assert_array_equal(dropped, dropped[:, ::-1])
    assert dropped[8, 16] == dropped[16, 8] == 1 and dropped[8, 8] == 0 and dropped[7, 16] == 0


@pytest.mark.parametrize("frame", [-1, 2])
def test_masks_of_a_frame_that_is_not_there(frame):
    with pytest.raises(ValueError, match="no frame"):
        cluster_masks(_given(np.zeros((2, 3, 3)), [1.0, 0.0], [False, False]), size=(6, 6), frame=frame)


def _film(frames=8):
    rng = np.random.default_rng(0)
    labels = [np.full((9, 16), 2) for _ in range(frames)]
    for index, label in enumerate(labels):
        label[2:6, index : index + 4], label[7:, 10:] = 0, 1
    return list(rng.integers(100, 200, (frames, 90, 160, 3), dtype=np.uint8)), labels


def test_the_sheet_has_a_row_for_each_cluster_and_a_column_for_each_of_six_frames():
    frames, labels = _film()
    kept, shares = np.array([True, True, False]), np.array([0.11, 0.004, 0.81])
    sheet = cluster_sheet(frames, labels, kept, shares)
    tall = round(240 * 90 / 160)
    step = (sheet.shape[0] - 4) // 3
    assert sheet.shape[1] == 4 + 6 * 244 and tall + 4 < step < tall + 40
    fewer = cluster_sheet(frames[:2], labels[:2], kept[:2], shares[:2])
    assert fewer.shape == (4 + 2 * step, 4 + 2 * 244, 3)
    tiles = sheet[4 : 4 + 3 * step].reshape(3, step, -1, 3)[:, :tall, 4 : 4 + 6 * 244].reshape(3, tall, 6, 244, 3)
    inside = tiles[:, int(tall * 4 / 9), 0, 30].astype(int)  # of the first frame, where cluster 0 is
    assert (np.ptp(inside, axis=1) < 40).tolist() == [False, True, True]
    assert inside[0].max() > 100 and inside[1:].max() < 80  # painted in its own row alone
    text = sheet[4 : 4 + 3 * step].reshape(3, step, -1, 3)[:, tall + 1 :, 4:244]
    assert (text < 128).any(axis=(1, 2, 3)).all()
    assert (sheet[4 + tall + 1 : 4 + step - 4, 250:] == 255).all()  # the other columns say nothing
    assert (cluster_sheet(frames, labels, kept, np.array([0.11, 0.004, 0.0])) != sheet).any()  # "empty"


def test_the_sheet_sets_kept_and_dropped_apart():
    frames, labels = _film(1)
    shares = np.array([0.11, 0.08, 0.81])
    tall = 135
    colours = {}
    for kept in (True, False):
        sheet = cluster_sheet(frames, labels, np.array([kept, True, False]), shares)
        row = 0 if kept else 2  # after the kept, and the larger of the dropped
        step = (sheet.shape[0] - 4) // 3
        tile = sheet[4 + row * step : 4 + row * step + tall, 4:244].astype(int)
        colours[kept] = tile[40:80, 10:50].mean(axis=(0, 1))
    assert np.ptp(colours[True]) > 50  # tinted
    assert np.ptp(colours[False]) < 2 and colours[False].min() > 130  # grey, but not dark
    plain = overlay(frames[0], np.ones((90, 160), np.uint8))[20:60, 5:35].mean(axis=(0, 1))
    np.testing.assert_allclose(colours[True], plain, atol=12)


def test_the_sheet_numbers_clusters_as_their_masks():
    """In a sheet of cells as large as pixels, row r tints what the mask numbers r, in the colour of r."""
    frames, labels = _film(1)
    kept, shares = np.array([True, True, False]), np.array([0.05, 0.2, 0.75])
    masks = np.asarray(cluster_masks(_given(np.stack(labels), shares, kept), size=(90, 160)))[0]
    sheet = cluster_sheet(frames, labels, kept, shares)
    step, tall = (sheet.shape[0] - 4) // 3, 135
    rows, columns = (np.arange(90) * 1.5 + 0.75).astype(int), (np.arange(160) * 1.5 + 0.75).astype(int)
    for number in (1, 2):
        tile = sheet[4 + (number - 1) * step :][:tall, 4:244][rows][:, columns].astype(int)
        expected = overlay(frames[0], np.where(masks == number, number, 0))[masks == number].mean(axis=0)
        np.testing.assert_allclose(tile[masks == number].mean(axis=0), expected, atol=8)


def test_the_sheet_wants_labels_for_its_frames():
    frames, labels = _film(2)
    for pair in ((frames, labels[:1]), ([], [])):
        with pytest.raises(ValueError, match="at least"):
            cluster_sheet(*pair, np.array([True]), np.array([1.0]))
