"""Training batches: what is kept of a frame, the order they come in, and that any step can be returned to."""

from itertools import islice
from pathlib import Path

import chex
import jax
import numpy as np
import pytest
from PIL import Image

from jaxvos.data import FrameStore, list_sequences, load_frames, mixed_batches, shuffled_batches, write_mask
from jaxvos.errors import InputError

SIZE = (24, 32)


def _sequence(root: Path, name: str, *, frames: int = 4, annotated: int = 4) -> None:
    """Frames twice as large as they will be kept, with two objects and a stripe of void."""
    mask = np.zeros((48, 64), np.uint8)
    mask[8:24, 8:24], mask[8:24, 32:48], mask[40:] = 1, 2, 255
    for index in range(frames):
        image = np.full((48, 64, 3), 20 * index, np.uint8)
        image[:, ::2] += 10
        path = root / "JPEGImages" / "480p" / name / f"{index:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
        if index < annotated:
            write_mask(root / "Annotations" / "480p" / name / f"{index:05d}.png", mask)


def _flow(image, next_image, *, name):
    """Eight pixels to the right, two down, and a half more in each frame."""
    return np.broadcast_to(np.float32([8 + int(name) / 2, 2]), (*image.shape[:2], 2)).copy()


def _load(root, **options):
    return load_frames(list_sequences(root), **{"size": SIZE, "flow": _flow, "progress": False} | options)


def _store(count=5):
    """Frame n is filled with n, and holds an object in its upper rows; the last one holds none."""
    masks = np.zeros((count, 4, 6), np.uint8)
    masks[:-1, :2], masks[:-1, 2:3] = 1, 3
    images = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 4, 6, 3))
    flow = np.broadcast_to(np.arange(count, dtype=np.float16)[:, None, None, None], (count, 4, 6, 2))
    return FrameStore(images, masks, flow, ("a",) * count)


def _numbers(clip):
    """Which frames of `_store` a batch holds."""
    return [round(float(x) * 255) for x in clip.images[:, 0, 0, 0, 0]]


def test_frames_masks_and_flow_at_one_size(tmp_path):
    _sequence(tmp_path, "bear")
    _sequence(tmp_path, "half", annotated=2)
    store = _load(tmp_path)
    assert store.sequences == ("bear",) * 3 + ("half",) * 2  # the last frame has no flow; frames without mask are out
    assert store.images.shape == (5, *SIZE, 3) and store.images.dtype == np.uint8
    np.testing.assert_array_equal(store.images[:3, 5, 5, 0], [5, 25, 45])  # averaged, not picked
    assert store.masks.shape == (5, *SIZE) and set(np.unique(store.masks)) == {0, 1, 2}
    assert store.masks[0, 6, 6] == 1 and store.masks[0, 6, 20] == 2 and store.masks[0, -1].max() == 0  # void
    assert store.flow.shape == (5, *SIZE, 2) and store.flow.dtype == np.float16
    np.testing.assert_array_equal(store.flow[:3, 5, 5], [[4, 1], [4.25, 1], [4.5, 1]])  # pixels of this size


def test_a_sequence_without_masks(tmp_path):
    _sequence(tmp_path, "bear", annotated=0)
    with pytest.raises(InputError, match="no annotated frame in bear"):
        _load(tmp_path)
    with pytest.raises(InputError, match="no annotated frame in an empty list"):
        load_frames([], size=SIZE, flow=_flow, progress=False)


def test_the_cache_is_read_instead_of_the_frames(tmp_path):
    root, cache = tmp_path / "davis", tmp_path / "kept" / "train.npz"
    _sequence(root, "bear")
    made = _load(root, cache=cache)
    for path in (root / "JPEGImages" / "480p" / "bear").iterdir():
        path.write_bytes(b"")
    read = _load(root, cache=cache)
    chex.assert_trees_all_equal(made[:3], read[:3])
    assert read.sequences == made.sequences and [path.name for path in cache.parent.iterdir()] == ["train.npz"]


def test_the_cache_of_something_else_is_refused(tmp_path):
    root, cache = tmp_path / "davis", tmp_path / "train.npz"
    _sequence(root, "bear")
    _sequence(root, "half", annotated=0)  # leaves no frame in the cache, and is asked for all the same
    _load(root, cache=cache)
    _load(root, cache=cache)
    with pytest.raises(InputError, match="other sequences or at another size; remove it"):
        _load(root, cache=cache, size=(12, 16))
    with pytest.raises(InputError, match="other sequences"):
        load_frames(list_sequences(root)[:1], size=SIZE, flow=_flow, cache=cache, progress=False)
    _sequence(root, "new")
    with pytest.raises(InputError, match="other sequences"):
        _load(root, cache=cache)
    for content in (cache.read_bytes()[:-200], b"", b"hello"):
        cache.write_bytes(content)
        with pytest.raises(InputError, match="cannot be read .*remove it"):
            _load(root, cache=cache)


def test_a_batch_holds_what_the_frames_hold():
    batches = shuffled_batches(_store(), batch_size=5, seed=0)
    clip = next(batches(0))
    assert clip.images.shape == (5, 1, 4, 6, 3) and clip.images.dtype == np.float32
    assert clip.masks.shape == (5, 1, 4, 6, 2) and clip.flow.shape == (5, 1, 4, 6, 2) and clip.valid.all()
    np.testing.assert_array_equal(clip.masks.sum(-1), 1)
    numbers = _numbers(clip)
    np.testing.assert_array_equal(clip.flow[:, 0, 0, 0, 0], numbers)
    for number, masks, alive in zip(numbers, clip.masks[:, 0], clip.alive, strict=True):
        np.testing.assert_array_equal(masks[:3, :, 1], number != 4)
        np.testing.assert_array_equal(alive, [True, number != 4])


def test_objects_beyond_the_slots_share_the_last():
    store = _store()
    clip = next(shuffled_batches(store, batch_size=5, seed=0, slots=3)(0))
    frame = _numbers(clip).index(0)
    np.testing.assert_array_equal(clip.masks[frame, 0, :, 0].argmax(-1), [1, 1, 2, 0])
    clip = next(shuffled_batches(store, batch_size=5, seed=0, slots=4)(0))
    np.testing.assert_array_equal(clip.masks[frame, 0, :, 0].argmax(-1), [1, 1, 3, 0])
    np.testing.assert_array_equal(clip.alive[frame], [True, True, False, True])


def test_every_frame_once_an_epoch_in_an_order_of_its_own():
    for seed in (0, 1):
        batches = shuffled_batches(_store(), batch_size=2, seed=seed)
        drawn = [number for clip in islice(batches(0), 10) for number in _numbers(clip)]
        epochs = [drawn[start : start + 5] for start in range(0, 20, 5)]
        assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs)
        assert len({tuple(epoch) for epoch in epochs}) > 1
    others = shuffled_batches(_store(), batch_size=2, seed=0)
    assert [_numbers(clip) for clip in islice(others(0), 10)] != [_numbers(clip) for clip in islice(batches(0), 10)]


def _equal_from(batches, start, count=3):
    resumed, straight = list(islice(batches(start), count)), list(islice(batches(0), start, start + count))
    assert jax.tree.structure(resumed) == jax.tree.structure(straight)
    chex.assert_trees_all_equal(resumed, straight)


@pytest.mark.parametrize("start", [1, 2, 7])
def test_batches_from_a_step_on_are_the_same_ones(start):
    first = shuffled_batches(_store(), batch_size=2, seed=0)
    _equal_from(first, start)
    _equal_from(mixed_batches(first, shuffled_batches(_store(9), batch_size=3, seed=1), share=0.5, seed=3), start)


def test_a_mixture_has_its_share_and_skips_nothing():
    def counting(size):
        return lambda start: iter([(size, number) for number in range(start, 2000)])

    mixed = list(islice(mixed_batches(counting("few"), counting("many"), share=0.25, seed=0)(0), 2000))
    few = [number for kind, number in mixed if kind == "few"]
    assert 0.2 < len(few) / 2000 < 0.3 and few == list(range(len(few)))
    many = [number for kind, number in mixed if kind == "many"]
    assert many == list(range(len(many)))
    for share, kind in ((0.0, "many"), (1.0, "few")):
        only = islice(mixed_batches(counting("few"), counting("many"), share=share, seed=0)(0), 20)
        assert {name for name, _ in only} == {kind}
