"""Losses of correspondence against loops, and against what the supplement's pseudo-code would compute.

Numbers in the names of tests are those of the specification's list of traps. Traps 1, 10, 11 and 19 concern the
sampling of frames, their augmentation and the data-parallel batch, which are not the business of a loss.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import correspondence as loops
from scipy.optimize import linear_sum_assignment

from jaxvos.errors import InputError
from jaxvos.losses import draw_boxes, grid_anchors, object_coherence, pixel_consistency, view_consistency
from jaxvos.ops import Keys, similarity
from jaxvos.solvers import match

B, H, W, C, A = 3, 4, 5, 4, 3
RNG = np.random.default_rng(0)
FIRST, SECOND, REMOTE = RNG.normal(0, 1, (3, B, H, W, C)).astype(np.float32)
SHRINKAGE = RNG.uniform(1, 4, (B, H, W)).astype(np.float32)
SELECTIONS = RNG.uniform(0, 1, (2, B, H, W, C)).astype(np.float32)
ANCHORS = np.stack([RNG.choice(H * W, A, replace=False) for _ in range(B)]).astype(np.int32)
VALID = RNG.random((B, H, W)) < 0.6

STCN = (FIRST, None, None), (SECOND, None, None), (REMOTE, None, None)
XMEM = (FIRST, None, SELECTIONS[0]), (SECOND, None, SELECTIONS[1]), (REMOTE, SHRINKAGE, None)

pixels = jax.jit(pixel_consistency, static_argnames="similarity")
views = jax.jit(view_consistency, static_argnames="similarity")
solve = jax.jit(match, static_argnames="method")
objects = jax.jit(object_coherence, static_argnames=("method", "temperature"))
grids = functools.cache(lambda **o: jax.jit(jax.vmap(functools.partial(grid_anchors, **o))))


def dot_similarity(query, memory):
    return query.key @ memory.key.T


def _keys(*arrays):
    return tuple(Keys(*(None if x is None else jnp.asarray(x) for x in each)) for each in arrays)


def _scores(query, memory, anchors):
    """All scores `[B h w, B a]` of STCN's similarity, as in the pseudo-code."""
    entries = np.concatenate([memory[b].reshape(-1, C)[anchors[b]] for b in range(B)]).astype(np.float64)
    return -((query.reshape(-1, 1, C) - entries) ** 2).sum(-1) / np.sqrt(C)


def _flat_labels(first=STCN[0], remote=STCN[2]):
    return (loops.labels(first, remote, ANCHORS) + A * np.arange(B)[:, None, None]).ravel()


def _softmax(scores, axis=1):
    exponentials = np.exp(scores - scores.max(axis, keepdims=True))
    return exponentials / exponentials.sum(axis, keepdims=True)


def _nll(log_chance, labels):
    return -log_chance[np.arange(len(labels)), labels].mean()


# Anchors


def test_trap_2_anchors_stay_within_the_frame():
    """`arange(0, W, R)` has a seventh column, which an offset pushes over the edge."""
    keys = jax.random.split(jax.random.key(0), 200)
    found = np.asarray(grids(size=(16, 54), cell=8)(keys))
    assert len(np.arange(0, 54, 8)) == 7 and max(np.arange(0, 54, 8)) + 7 == 55 > 53
    assert found.shape == (200, 2 * 6) and found.min() >= 0 and found.max() < 16 * 54
    columns, rows = np.unique(found % 54), np.unique(found // 54)
    assert columns.max() == 47 and columns.min() == 0 and rows.max() == 15  # 48..53 are left of six whole cells
    for anchors in found:
        y, x = anchors.reshape(2, 6) // 54, anchors.reshape(2, 6) % 54
        assert (np.diff(x, axis=1) == 8).all() and (np.diff(y, axis=0) == 8).all()
        assert (x == x[0]).all() and (y == y[:, :1]).all()


def test_trap_4_eight_is_a_count_or_a_side():
    keys = jax.random.split(jax.random.key(1), 50)
    grid, cell = (np.asarray(grids(size=(24, 24), **o)(keys)) for o in ({}, {"cell": 8}))
    assert grid.shape == (50, 64) and cell.shape == (50, 9)
    for anchors, step in ((grid, 3), (cell, 8)):
        side = int(anchors.shape[1] ** 0.5)
        assert (np.diff(anchors.reshape(50, side, side) % 24) == step).all()
        assert len(np.unique(anchors[:, 0])) > 5  # an offset for each clip
        assert set(anchors[:, 0] // 24) | set(anchors[:, 0] % 24) <= set(range(step))
    assert grids(size=(24, 24), grid=4)(keys).shape == (50, 16)


@pytest.mark.parametrize("options", [{"grid": 8}, {"grid": 0}, {"cell": 8}, {"cell": 0}])
def test_a_grid_that_does_not_fit_is_refused(key, options):
    with pytest.raises(InputError, match="does not fit a map of 7 x 20 keys"):
        grid_anchors(key, size=(7, 20), **options)


# Pixels


@pytest.mark.parametrize("host", [STCN, XMEM], ids=["stcn", "xmem"])
@pytest.mark.parametrize("valid", [None, VALID], ids=["all", "valid"])
def test_pixel_consistency_against_a_loop(host, valid):
    found = pixels(*_keys(*host), jnp.asarray(ANCHORS), valid=None if valid is None else jnp.asarray(valid))
    assert found == pytest.approx(loops.pixel_consistency(*host, ANCHORS, valid), rel=1e-5)


@pytest.mark.parametrize("host", [STCN, XMEM], ids=["stcn", "xmem"])
@pytest.mark.parametrize("valid", [None, VALID], ids=["all", "valid"])
def test_view_consistency_against_a_loop(host, valid):
    found = views(*_keys(host[0], host[2]), jnp.asarray(ANCHORS), valid=None if valid is None else jnp.asarray(valid))
    assert found == pytest.approx(loops.view_consistency(host[0], host[2], ANCHORS, valid), rel=1e-5)


def _ours():
    return float(pixels(*_keys(*STCN), jnp.asarray(ANCHORS)))


def test_trap_3_each_clip_is_asked_at_its_own_anchors():
    shared = np.broadcast_to(ANCHORS[:1], ANCHORS.shape)
    printed = loops.pixel_consistency(*STCN, shared)  # one list of indices for the batch
    assert abs(printed - _ours()) > 0.01
    transposed = (ANCHORS % W) * H + ANCHORS // W  # indices of a map of columns
    assert abs(loops.pixel_consistency(*STCN, transposed) - _ours()) > 0.01


def test_trap_5_scores_are_those_of_the_host():
    """A product of keys ignores the length of an anchor, which a softmax over anchors does not."""
    product = pixels(*_keys(*STCN), jnp.asarray(ANCHORS), similarity=dot_similarity)
    assert product == pytest.approx(loops.pixel_consistency(*STCN, ANCHORS, score=loops.dot), rel=1e-5)
    assert abs(product - _ours()) > 0.1
    view = views(*_keys(STCN[0], STCN[2]), jnp.asarray(ANCHORS), similarity=dot_similarity)
    assert view == pytest.approx(loops.view_consistency(STCN[0], STCN[2], ANCHORS, score=loops.dot), rel=1e-5)
    assert abs(view - loops.view_consistency(STCN[0], STCN[2], ANCHORS)) > 0.1


def test_trap_6_the_softmax_runs_over_anchors():
    table, labels = _scores(SECOND, REMOTE, ANCHORS), _flat_labels()
    assert _ours() == pytest.approx(_nll(np.log(_softmax(table, 1)), labels), rel=1e-5)
    assert abs(_nll(np.log(_softmax(table, 0)), labels) - _ours()) > 0.1


def test_trap_7_the_loss_takes_logarithms():
    printed = _nll(_softmax(_scores(SECOND, REMOTE, ANCHORS)), _flat_labels())
    assert -1 <= printed <= 0 < _ours()
    far = _keys((30 * FIRST, None, None), (30 * SECOND, None, None), (30 * REMOTE, None, None))
    value, gradient = jax.value_and_grad(lambda k: pixels(far[0], k, far[2], jnp.asarray(ANCHORS)))(far[1])
    assert np.isfinite(value) and value > 100  # the logarithm of a softmax that underflows would be infinite
    assert np.isfinite(gradient.key).all() and gradient.key.any()


def _crossed(scale):
    """Clips whose pixels resemble the next clip's anchors most."""
    centres = scale * np.eye(B, C, dtype=np.float32)[:, None, None]
    noise = 0.1 * RNG.normal(0, 1, (2, B, H, W, C)).astype(np.float32)
    frames, remote = noise[0] + centres, noise[1] + np.roll(centres, 1, axis=0)
    return (frames, None, None), (frames + 0.05, None, None), (remote, None, None)


@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_trap_8_labels_stay_in_the_clip(scale):
    """Of all anchors, the best is another clip's; a softmax times 0 and 1 underflows, and then names clip 0's first."""
    host = _crossed(scale)
    first, second, remote = (each[0] for each in host)
    table, clip = _scores(first, remote, ANCHORS), np.repeat(np.arange(B), H * W)
    own = np.repeat(np.arange(B), A) == clip[:, None]
    judged = np.log(np.maximum(_softmax(_scores(second, remote, ANCHORS)), 1e-300))
    anywhere = table.argmax(1)
    assert (anywhere // A != clip).all()
    ours = float(pixels(*_keys(*host), jnp.asarray(ANCHORS)))
    assert ours == pytest.approx(loops.pixel_consistency(*host, ANCHORS), rel=1e-4)
    assert abs(_nll(judged, anywhere) - ours) > 0.3
    if scale == 40:
        multiplied = (_softmax(table).astype(np.float16) * own).argmax(1)
        assert (multiplied == 0).all() and abs(_nll(judged, multiplied) - ours) > 0.3


def test_trap_9_labels_have_no_gradient():
    first, second, remote = _keys(*XMEM)
    gradients = jax.jit(jax.grad(pixel_consistency, argnums=(0, 1, 2)))(first, second, remote, jnp.asarray(ANCHORS))
    assert all(not leaf.any() for leaf in jax.tree.leaves(gradients[0]))
    for leaf in jax.tree.leaves(gradients[1:]):
        assert np.isfinite(leaf).all() and leaf.any()
    gathered = np.zeros((B, H * W), bool)
    np.put_along_axis(gathered, ANCHORS, True, axis=1)
    touched = np.asarray(gradients[2].key).reshape(B, H * W, C).any(-1)
    np.testing.assert_array_equal(touched, gathered)


def test_trap_9_equal_keys_are_what_the_regulariser_is_against():
    """Keys that differ between clips alone satisfy the first loss, up to the choice among the anchors of a clip."""
    collapsed = np.broadcast_to(20 * np.eye(B, C, dtype=np.float32)[:, None, None], FIRST.shape)
    equal, varied = (_keys((x, None, None))[0] for x in (collapsed, 20 * FIRST))
    anchors = jnp.asarray(ANCHORS)
    assert pixels(equal, equal, equal, anchors) == pytest.approx(np.log(A), rel=1e-4)
    assert pixels(equal, equal, equal, anchors[:, :1]) == pytest.approx(0, abs=1e-6)
    assert views(equal, equal, anchors) == pytest.approx(np.log(A), rel=1e-4)
    assert views(varied, varied, anchors) < 1e-3


def test_an_anchor_names_itself_where_frames_are_equal():
    """At the anchors of equal frames the loss is that of each anchor naming itself."""
    keys = _keys(STCN[2])[0]
    anchors = np.zeros((B, H, W), bool)
    anchors.reshape(B, -1)[np.arange(B)[:, None], ANCHORS] = True
    found = pixels(keys, keys, keys, jnp.asarray(ANCHORS), valid=jnp.asarray(anchors))
    assert found == pytest.approx(loops.view_consistency(STCN[2], STCN[2], ANCHORS), rel=1e-5)
    named = loops.labels(STCN[2], STCN[2], ANCHORS).reshape(B, -1)
    np.testing.assert_array_equal(np.take_along_axis(named, ANCHORS, axis=1), np.tile(np.arange(A), (B, 1)))


def test_the_softmax_of_views_runs_over_the_second():
    host = _keys(XMEM[0], XMEM[2])
    table = np.asarray(similarity(*(
        Keys(*(None if x is None else jnp.concatenate([x[b].reshape(H * W, *x.shape[3:])[ANCHORS[b]] for b in range(B)])
               for x in keys)) for keys in host)), np.float64)  # fmt: skip
    right, wrong = (_nll(np.log(_softmax(table, axis)), np.arange(B * A)) for axis in (1, 0))
    found = views(*host, jnp.asarray(ANCHORS))
    assert found == pytest.approx(right, rel=1e-4) and abs(found - wrong) > 0.01


def test_without_any_pixel_there_is_no_loss():
    nothing, anchors = jnp.zeros((B, H, W), bool), jnp.asarray(ANCHORS)
    first, second, remote = _keys(*XMEM)
    losses = (lambda k: pixels(first, k, remote, anchors, valid=nothing), lambda k: views(k, remote, anchors,
                                                                                          valid=nothing))  # fmt: skip
    for loss in losses:
        value, gradient = jax.value_and_grad(loss)(second)
        assert value == 0 and not any(leaf.any() for leaf in jax.tree.leaves(gradient))


def test_one_clip_with_one_anchor_is_certain():
    first, second, remote = (Keys(k.key[:1]) for k in _keys(*STCN))
    anchors = jnp.asarray(ANCHORS[:1, :1])
    assert pixels(first, second, remote, anchors) == 0 and views(first, remote, anchors) == 0


# Objects

N, M, D = 4, 7, 6
BOXES, OTHERS = RNG.normal(0, 1, (B, N, D)).astype(np.float32), RNG.normal(0, 1, (B, M, D)).astype(np.float32)
ROWS = np.array([[1, 1, 1, 0], [1, 0, 1, 1], [1, 1, 1, 1]], bool)
# the second clip has three rows and two columns
COLUMNS = np.array([[1, 0, 1, 1, 1, 1, 0], [0, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1]], bool)
NEAR = RNG.random((B, M, M)) < 0.4
NEAR = NEAR | NEAR.transpose(0, 2, 1) | np.eye(M, dtype=bool)


def _objects(first=BOXES, second=OTHERS, rows=ROWS, columns=COLUMNS, near=None, **options):
    near = None if near is None else jnp.asarray(near)
    return objects(jnp.asarray(first), jnp.asarray(second), first_valid=jnp.asarray(rows),
                   second_valid=jnp.asarray(columns), near_duplicates=near, **options)  # fmt: skip


def _table(columns=COLUMNS):
    """Logits `[B N, B M]`, those of columns that do not exist excluded."""
    unit = [x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (BOXES, OTHERS)]
    table = unit[0].reshape(-1, D).astype(np.float64) @ unit[1].reshape(-1, D).T / 0.1
    return np.where(columns.ravel(), table, -1e9)


def _loss_of(pairs, offset=M, table=None):
    """Mean negative log-likelihood of (clip, row, column), with targets at `offset` times the clip."""
    chance = np.log(np.maximum(_softmax(_table() if table is None else table), 1e-300))
    return -np.mean([chance[b * N + n, b * offset + m] for b, n, m in pairs])


def _pairs():
    found = loops.matches(BOXES, OTHERS, ROWS, COLUMNS)
    return [(b, n, m) for b, pairs in enumerate(found) for n, m in pairs]


def test_object_coherence_against_a_loop():
    assert _objects() == pytest.approx(loops.object_coherence(BOXES, OTHERS, ROWS, COLUMNS), rel=1e-5)
    assert _objects() == pytest.approx(_loss_of(_pairs()), rel=1e-5)
    warm = loops.object_coherence(BOXES, OTHERS, ROWS, COLUMNS, temperature=0.5)
    assert _objects(temperature=0.5) == pytest.approx(warm, rel=1e-5) and abs(warm - _objects()) > 0.1


def test_trap_12_boxes_are_drawn_without_replacement():
    """`randint(N)` is one number; and indices that a batch shares may be no boxes of a clip."""
    valid = np.stack([ROWS[0].repeat(3), ROWS[1].repeat(3), np.zeros(12, bool)])
    keys = jax.random.split(jax.random.key(0), 300).reshape(100, 3)
    index, drawn = jax.jit(jax.vmap(jax.vmap(lambda k, v: draw_boxes(k, v, 5)), (0, None)))(keys, jnp.asarray(valid))
    assert index.shape == drawn.shape == (100, 3, 5)
    assert drawn[:, :2].all() and not drawn[:, 2].any()
    for b in range(2):
        assert all(len(set(each)) == 5 and valid[b][each].all() for each in np.asarray(index[:, b]))
        counts = np.bincount(np.asarray(index[:, b]).ravel(), minlength=12)
        assert counts[valid[b]].min() > 30 and not counts[~valid[b]].any()  # 56 of each are expected
    assert not jnp.array_equal(index[:, 0], index[:, 2])


@pytest.mark.parametrize("existing", [0, 1, 3])
def test_fewer_boxes_than_asked_for_are_drawn_first(key, existing):
    valid = jnp.arange(3) >= 3 - existing
    index, drawn = draw_boxes(key, valid, 5)
    assert drawn.tolist() == [True] * existing + [False] * (5 - existing)
    assert sorted(index[:existing].tolist()) == list(range(3 - existing, 3))
    assert ((index >= 0) & (index < 3)).all()


def test_trap_13_one_clip_or_one_box_keeps_its_axes():
    assert np.zeros((1, 1, 1, 1, D)).squeeze().shape == (D,)  # pooled features, as printed
    for clips, rows, columns in ((1, N, M), (3, 1, M), (1, 1, 1), (1, 1, M)):
        arrays = BOXES[-clips:, :rows], OTHERS[-clips:, :columns], ROWS[-clips:, :rows], COLUMNS[-clips:, :columns]
        assert _objects(*arrays) == pytest.approx(loops.object_coherence(*arrays), rel=1e-5, abs=1e-6)


def test_trap_14_an_assignment_is_no_matrix():
    """The positions of the greatest indices are not matches, and a row of zeros does not mean the first column."""
    ours, cost = float(_objects()), -np.where(COLUMNS[:, None], 0, -9) - np.einsum("bnd,bmd->bnm", BOXES, OTHERS)
    printed = [(b, row, int(column)) for b in range(B)
               for row, column in enumerate(np.argmax(np.array(linear_sum_assignment(cost[b])), axis=1))]  # fmt: skip
    assert len(printed) == 2 * B and abs(_loss_of(printed) - ours) > 0.1
    matched = {(b, n) for b, n, _ in _pairs()}
    left = [(b, n, 0) for b in range(B) for n in np.flatnonzero(ROWS[b]) if (b, n) not in matched]
    assert [b for b, _, _ in left] == [1]  # three boxes, two partners
    assert abs(_loss_of(_pairs() + left) - ours) > 0.1


def test_trap_15_matches_are_the_most_similar():
    worst = [(b, n, m) for b, pairs in enumerate(loops.matches(-BOXES, OTHERS, ROWS, COLUMNS)) for n, m in pairs]
    assert _loss_of(worst) - _objects() > 1


def test_trap_16_targets_are_offset_by_the_columns_of_a_clip():
    assert [b * M for b in range(B)] == [0, 7, 14] and [b * B for b in range(B)] == [0, 3, 6]
    assert abs(_loss_of(_pairs(), offset=B) - _objects()) > 0.1


def test_trap_17_the_softmax_runs_over_valid_columns():
    assert _loss_of(_pairs(), table=_table(np.ones_like(COLUMNS))) - _objects() > 0.1
    chance = np.log(_softmax(_table(), axis=0))
    over_rows = -np.mean([chance[b * N + n, b * M + m] for b, n, m in _pairs()])
    assert abs(over_rows - _objects()) > 0.1


def test_trap_18_near_duplicates_of_the_match_are_no_negatives():
    expected = loops.object_coherence(BOXES, OTHERS, ROWS, COLUMNS, near_duplicates=NEAR)
    found = _objects(near=NEAR)
    assert found == pytest.approx(expected, rel=1e-5) and found < _objects() - 0.01
    alone = np.broadcast_to(np.eye(M, dtype=bool), NEAR.shape)
    assert _objects(near=alone) == pytest.approx(float(_objects()), rel=1e-6)  # a box is a near duplicate of itself


def test_trap_18_other_clips_are_negatives():
    alone = [x[2:] for x in (BOXES, OTHERS, ROWS, COLUMNS)]
    apart = loops.object_coherence(*alone)
    assert _objects(*alone) == pytest.approx(apart, rel=1e-5)
    twice = [np.concatenate([x, x]) for x in alone]  # a batch that holds the same video twice
    assert _objects(*twice) > apart + 0.1


def test_a_permutation_is_recovered():
    order = np.stack([RNG.permutation(N) for _ in range(B)])
    shuffled = np.take_along_axis(BOXES, order[..., None], axis=1)
    every = np.ones((B, N), bool)
    right = [(b, int(order[b, m]), m) for b in range(B) for m in range(N)]
    unit = [x.reshape(-1, D) / np.linalg.norm(x.reshape(-1, D), axis=-1, keepdims=True) for x in (BOXES, shuffled)]
    table = unit[0].astype(np.float64) @ unit[1].T / 0.1
    expected = _loss_of(right, offset=N, table=table)
    for method in ("hungarian", "greedy"):
        found = _objects(3 * BOXES, shuffled, every, every, method=method)  # lengths do not matter
        assert found == pytest.approx(expected, rel=1e-4)
    assert expected < 0.5


@pytest.mark.parametrize("method", ["hungarian", "sinkhorn"])
def test_padding_changes_nothing(method):
    pad = lambda x, value: np.concatenate([x, np.full((B, 3, *x.shape[2:]), value, x.dtype)], axis=1)  # noqa: E731
    near = np.pad(NEAR, ((0, 0), (0, 3), (0, 3)), constant_values=True)
    arrays = pad(BOXES, np.nan), pad(OTHERS, np.nan), pad(ROWS, False), pad(COLUMNS, False)
    graded = jax.value_and_grad(lambda x, *rest, near: _objects(x[0], x[1], *rest, near=near, method=method))
    base, expected = graded((jnp.asarray(BOXES), jnp.asarray(OTHERS)), ROWS, COLUMNS, near=NEAR)
    padded, found = graded(tuple(map(jnp.asarray, arrays[:2])), *arrays[2:], near=near)
    assert padded == pytest.approx(float(base), rel=1e-4)
    for gradient, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(gradient[:, :-3], other, atol=1e-4)
        assert not gradient[:, -3:].any()


def _plans(method):
    """Plans `[B, N, M]` of the solver, and the rows that are matched."""
    costs = jnp.asarray(-0.1 * _table().reshape(B, N, B, M)[np.arange(B), :, np.arange(B)], jnp.float32)
    found = [solve(costs[b], method=method, row_mask=jnp.asarray(ROWS[b]), col_mask=jnp.asarray(COLUMNS[b]))
             for b in range(B)]  # fmt: skip
    return np.stack([each.plan for each in found]), np.stack([each.matched for each in found])


@pytest.mark.parametrize("near", [None, NEAR], ids=["all", "near"])
@pytest.mark.parametrize("method", ["sinkhorn", "pgd", "qp"])
def test_soft_targets_are_the_rows_of_the_plan(method, near):
    """What is no negative is no positive either."""
    plans, matched = _plans(method)
    terms = []
    for b, n in np.argwhere(matched):
        left = COLUMNS.copy()
        if near is not None:
            best = plans[b, n].argmax()
            left[b] &= ~near[b, best] | (np.arange(M) == best)
        chance = loops.log_softmax(_table()[b * N + n][left.ravel()])
        weights = plans[b, n][left[b]] / plans[b, n][left[b]].sum()
        before = left[:b].sum()
        terms.append(-(weights * chance[before : before + left[b].sum()]).sum())
    found = _objects(method=method, near=near)
    assert found == pytest.approx(np.mean(terms), rel=1e-3) and abs(found - _objects(near=near)) > 1e-3


@pytest.mark.parametrize("method", ["hungarian", "sinkhorn"])
def test_targets_have_no_gradient_and_both_frames_have_one(method):
    plans, matched = _plans(method)
    weights = matched[..., None] * plans / np.maximum(plans.sum(-1, keepdims=True), 1e-9) / matched.sum()

    def frozen(first, second):
        table = jnp.einsum("bnd,emd->bnem", *(x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (first, second)))
        table = jnp.where(COLUMNS, table / 0.1, -1e9)
        chance = table - jax.nn.logsumexp(table, axis=(2, 3), keepdims=True)
        return -jnp.sum(weights * chance[jnp.arange(B), :, jnp.arange(B)])

    def ours(first, second):
        return _objects(first, second, method=method)

    frames = jnp.asarray(BOXES), jnp.asarray(OTHERS)
    for found, expected in zip(*(jax.grad(f, argnums=(0, 1))(*frames) for f in (ours, frozen)), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)
        assert np.abs(expected).max() > 0.01


@pytest.mark.parametrize("method", ["hungarian", "greedy", "sinkhorn", "pgd", "qp"])
def test_every_number_is_finite_whatever_exists(method):
    graded = jax.jit(jax.value_and_grad(functools.partial(object_coherence, method=method), argnums=(0, 1)))
    zeros = jnp.zeros((B, N, D)), jnp.zeros((B, M, D))
    none, some = (jnp.zeros((B, N), bool), jnp.zeros((B, M), bool)), (jnp.asarray(ROWS), jnp.asarray(COLUMNS))
    one = none[0].at[0, 1].set(True), none[1].at[0, 2].set(True)
    frames = jnp.asarray(BOXES), jnp.asarray(OTHERS)
    for arrays, (rows, columns), empty in (
        (frames, none, True), (frames, (some[0], none[1]), True), (frames, (none[0], some[1]), True),
        (frames, one, True), (frames, some, False), (zeros, some, False),
    ):  # fmt: skip
        value, gradients = graded(*arrays, first_valid=rows, second_valid=columns, near_duplicates=jnp.asarray(NEAR))
        assert np.isfinite(value) and (value == 0) == empty
        assert all(np.isfinite(gradient).all() for gradient in gradients)
