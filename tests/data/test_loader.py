"""A batch follows from the seed and its step: whoever makes it, with how many threads, and wherever a run resumes."""

import functools
import threading
from itertools import islice

import chex
import jax
import numpy as np
import pytest
from data.test_clips import HEIGHT, WIDTH, Film

from jaxvos.data import (
    AffineRange,
    Augmentation,
    ClipConfig,
    ColourRange,
    clip_batches,
    list_sequences,
)
from jaxvos.errors import InputError

CONFIG = ClipConfig(
    num_frames=2,
    size=(HEIGHT, WIDTH),
    max_skip=((0, 1), (3, 4)),
    reverse=0.5,
    crop=(0.6, 1.0),
    augmentation=Augmentation(flip=0.5, clip=AffineRange(rotation=10.0), frame_colour=ColourRange(brightness=0.1)),
)
PLAIN = ClipConfig(num_frames=2, size=(HEIGHT, WIDTH))


class Marked(Film):
    """A film whose pixels tell which film it is."""

    def image(self, index):
        return np.full((HEIGHT, WIDTH, 3), int(self.name), np.uint8)


FILMS = [Marked(length=9, name=str(10 * number)) for number in range(5)]


def _batches(sources=FILMS, config=CONFIG, **options):
    return clip_batches(sources, config, **{"batch_size": 4, "seed": 0} | options)


def _take(batches, start, count):
    iterator = batches(start)
    taken = list(islice(iterator, count))
    iterator.close()
    return taken


def _names(batches, count):
    return [round(float(x) * 255) for clip in _take(batches, 0, count) for x in clip.images[:, 0, 0, 0, 0]]


@functools.cache
def _straight():
    return _take(_batches(), 0, 6)


def test_batches_are_whole_clips():
    clip = _straight()[0]
    assert clip.images.shape == (4, 2, HEIGHT, WIDTH, 3) and clip.masks.shape == (4, 2, HEIGHT, WIDTH, 3)
    assert clip.alive.shape == (4, 3) and clip.valid.shape == (4, 2) and clip.flow is None
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(clip))


@pytest.mark.parametrize("start", [1, 4])
def test_a_run_that_resumes_sees_the_same_batches(start):
    chex.assert_trees_all_equal(_take(_batches(), start, 6 - start), _straight()[start:])


@pytest.mark.parametrize("num_workers", [1, 3])
def test_the_number_of_workers_changes_nothing(num_workers):
    chex.assert_trees_all_equal(_take(_batches(num_workers=num_workers), 0, 6), _straight())


@pytest.mark.parametrize("count", [2, 4])
def test_processes_make_the_batch_together(count):
    parts = [_take(_batches(process_index=index, process_count=count), 0, 3) for index in range(count)]
    whole = [jax.tree.map(lambda *rows: np.concatenate(rows), *clips) for clips in zip(*parts, strict=True)]
    chex.assert_trees_all_equal(whole, _straight()[:3])


def test_another_seed_gives_other_clips_in_another_order():
    other = _take(_batches(seed=1), 0, 1)[0]
    assert (other.images != _straight()[0].images).any()
    assert _names(_batches(config=PLAIN), 5) != _names(_batches(config=PLAIN, seed=1), 5)


def test_every_sequence_once_an_epoch_and_as_often_as_it_is_given():
    names = _names(_batches(config=PLAIN), 5)
    epochs = [names[start : start + 5] for start in range(0, 20, 5)]
    assert all(sorted(epoch) == [0, 10, 20, 30, 40] for epoch in epochs) and len({tuple(e) for e in epochs}) > 1
    assert sorted(_names(_batches([*FILMS[:2], FILMS[0]], PLAIN, batch_size=3), 1)) == [0, 0, 10]


def test_no_two_clips_are_drawn_alike():
    film = Film(length=25)
    starts = [x for clip in _take(_batches([film], PLAIN, batch_size=8), 0, 4) for x in clip.images[:, 0, 0, 0, 0]]
    assert len(set(starts)) > 15  # of 24


def test_strides_follow_the_step():
    film, strided = Film(length=20), ClipConfig(num_frames=2, size=(HEIGHT, WIDTH), max_skip=((0, 1), (3, 4)))
    clips = _take(_batches([film], strided, batch_size=16), 0, 4)
    gaps = [np.rint(25.5 * np.diff(clip.images[:, :, 0, 0, 0])).astype(int) for clip in clips]
    assert all((gap == 1).all() for gap in gaps[:3]) and gaps[3].max() == 4


def test_sequences_that_are_too_short_are_named_and_left_out():
    short = Marked(length=1, name="99")
    with pytest.warns(UserWarning, match="without 2 annotated frames are left out: 99$"):
        batches = _batches([short, *FILMS], PLAIN)
    assert 99 not in _names(batches, 5)
    with pytest.raises(InputError, match=r"no sequence has 2 annotated frames \(99\): ask for shorter clips"):
        _batches([short])
    with pytest.raises(InputError, match="there are none"):
        _batches([])


def test_batches_that_do_not_split():
    with pytest.raises(InputError, match="4 clips does not split over 3 processes"):
        next(_batches(process_index=0, process_count=3)(0))
    with pytest.raises(InputError, match="2 processes, this being 2"):
        next(_batches(process_index=2, process_count=2)(0))
    for options in ({"batch_size": 0}, {"num_workers": 0}):
        with pytest.raises(InputError, match="one of each"):
            _batches(**options)


def test_an_error_comes_out_and_the_threads_end():
    class Broken(Marked):
        def image(self, index):
            raise InputError("frame 3 is damaged")

    with pytest.raises(InputError, match="frame 3 is damaged"):
        next(_batches([*FILMS, Broken(length=9, name="broken")], batch_size=6)(0))
    _take(_batches(), 0, 1)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("clips")]


@pytest.mark.data
def test_real_sequences_give_their_objects(data_dir):
    sequences = list_sequences(data_dir / "davis2016", resolution="256p")[:4]
    clips = _take(_batches(sequences), 3, 1)[0]
    assert clips.alive.tolist() == [[True, True, False]] * 4 and (clips.images.std((1, 2, 3)) > 0.02).all()
    assert (clips.masks[:, 0, ..., 1].mean((1, 2)) > 0.005).all()
