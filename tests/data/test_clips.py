"""Which frames and objects a clip is made of, told by a film whose every pixel is the number of its frame."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxvos.data import (
    AffineRange,
    Augmentation,
    ClipConfig,
    ClipSource,
    PreparedSequence,
    list_sequences,
    sample_clip,
    write_flow,
    write_mask,
)
from jaxvos.errors import InputError

HEIGHT, WIDTH = 16, 24
KNOWN = np.arange(HEIGHT)[:, None].repeat(WIDTH, 1) < 12  # where flow in files is known
PLAIN = ClipConfig(num_frames=3, size=(HEIGHT, WIDTH))


@dataclasses.dataclass
class Film:
    """Objects are upright stripes of four columns; `stripes(frame)` gives their ids from the left."""

    length: int = 20
    annotated: tuple[int, ...] = ()
    stripes: object = staticmethod(lambda frame: (1, 2, 3))
    name: str = "film"

    def __post_init__(self):
        self.annotated = self.annotated or tuple(range(self.length))

    def __len__(self):
        return self.length

    def image(self, index):
        return np.full((HEIGHT, WIDTH, 3), 10 * index, np.uint8)

    def mask(self, index):
        assert index in self.annotated
        ids = np.zeros(WIDTH, np.uint8)
        for place, id in enumerate(self.stripes(index)):
            ids[4 * place : 4 * place + 4] = id
        return ids[None].repeat(HEIGHT, 0)

    def flow(self, index):
        assert index + 1 < self.length
        return np.full((HEIGHT, WIDTH, 2), (index, 1), np.float32)


def _frames(clip):
    return np.rint(clip.images[0, :, 0, 0, 0] * 25.5).astype(int).tolist()


def _many(source, config, *, step=0, count=60):
    return [sample_clip((0, seed), source, config, step=step) for seed in range(count)]


def _config(**options):
    return dataclasses.replace(PLAIN, **options)


def test_a_clip_is_a_batch_of_one():
    clip = sample_clip(0, Film(), PLAIN)
    assert clip.images.shape == (1, 3, HEIGHT, WIDTH, 3) and clip.images.dtype == np.float32
    assert clip.masks.shape == (1, 3, HEIGHT, WIDTH, 3) and clip.masks.dtype == np.float32
    assert clip.alive.shape == (1, 3) and clip.valid.shape == (1, 3) and clip.valid.all()
    assert clip.flow is None and clip.edges is None
    np.testing.assert_array_equal(clip.masks.sum(-1), 1)


def test_the_seed_decides():
    same = [sample_clip((3, 4), Film(), PLAIN) for _ in range(2)]
    np.testing.assert_array_equal(same[0].images, same[1].images)
    assert len({tuple(_frames(clip)) for clip in _many(Film(), PLAIN)}) == 18  # every start


def test_strides_are_drawn_up_to_the_largest_and_never_repeat_a_frame():
    gaps = np.array([np.diff(_frames(clip)) for clip in _many(Film(), _config(max_skip=((0, 4),)))])
    assert set(np.unique(gaps)) == {1, 2, 3, 4} and (gaps[:, 0] != gaps[:, 1]).any()
    short = np.array([np.diff(_frames(clip)) for clip in _many(Film(length=6), _config(max_skip=((0, 9),)))])
    assert set(np.unique(short)) == {1, 2}  # as far as the sequence goes
    assert _frames(sample_clip(0, Film(length=1), _config(num_frames=1))) == [0]


def test_the_largest_stride_follows_the_schedule():
    config = _config(max_skip=((0, 1), (10, 5), (20, 2)))
    largest = [max(np.diff(_frames(clip)).max() for clip in _many(Film(), config, step=s)) for s in (0, 9, 10, 20, 99)]
    assert largest == [1, 1, 5, 2, 2]


@pytest.mark.parametrize("reverse", [0.0, 1.0])
@pytest.mark.parametrize(("adjacent", "pair"), [("none", None), ("first", 0), ("last", -1)])
def test_a_pair_of_neighbours_and_a_smallest_stride_of_the_others(adjacent, pair, reverse):
    config = _config(num_frames=4, max_skip=((0, 7),), min_skip=3, adjacent=adjacent, reverse=reverse)
    gaps = np.array([np.diff(_frames(clip)) for clip in _many(Film(length=25), config)]) * (1 - 2 * int(reverse))
    others = gaps if pair is None else np.delete(gaps, pair, axis=1)
    assert others.min() == 3 and others.max() == 7
    assert pair is None or set(gaps[:, pair]) == {1}


@pytest.mark.parametrize(("length", "adjacent", "strides"), [
    (3, "none", (1, 1)), (8, "none", (3, 3)), (4, "first", (1, 2)), (6, "first", (1, 4)), (6, "last", (4, 1)),
])  # fmt: skip
def test_short_sequences_go_as_far_as_they_can(length, adjacent, strides):
    config = _config(max_skip=((0, 9),), min_skip=5, adjacent=adjacent)
    assert {tuple(np.diff(_frames(clip))) for clip in _many(Film(length=length), config)} == {strides}
    assert len(_frames(sample_clip(0, Film(length=2), _config(num_frames=2, adjacent=adjacent)))) == 2
    assert _frames(sample_clip(0, Film(length=1), _config(num_frames=1, adjacent=adjacent))) == [0]


def test_strides_to_a_last_pair_are_those_they_were():
    """As drawn before there was a choice of pairs: runs that are published here can be repeated."""
    config = _config(max_skip=((0, 9),), adjacent="last", reverse=0.5)
    drawn = [_frames(sample_clip((0, seed), Film(length=12), config)) for seed in range(6)]
    assert drawn == [[0, 5, 6], [10, 6, 5], [1, 6, 7], [9, 4, 3], [3, 7, 8], [11, 8, 7]]


def test_clips_run_backwards_as_often_as_they_are_told():
    for share in (0.0, 0.5, 1.0):
        backwards = np.mean([np.diff(_frames(clip))[0] < 0 for clip in _many(Film(), _config(reverse=share))])
        assert abs(backwards - share) <= (0.2 if share == 0.5 else 0)


def test_annotated_frames_alone_unless_masks_are_not_wanted():
    film = Film(annotated=(0, 5, 10, 15))
    assert {tuple(_frames(clip)) for clip in _many(film, PLAIN)} == {(0, 5, 10), (5, 10, 15)}
    bare = _many(film, _config(masks=False))
    assert {tuple(np.diff(_frames(clip))) for clip in bare} == {(1, 1)}
    assert bare[0].masks is None and bare[0].alive is None


def test_more_objects_than_slots_are_drawn_and_the_rest_is_background():
    clips = _many(Film(), PLAIN)
    chosen = {tuple(int(clip.masks[0, 0, 0, ::4].argmax(-1)[place]) for place in range(3)) for clip in clips}
    assert chosen == {(1, 2, 0), (1, 0, 2), (0, 1, 2)}  # in the order of their ids
    assert all(clip.alive.all() for clip in clips)


def test_slots_without_an_object_are_dead():
    clip = sample_clip(0, Film(), _config(num_objects=5))
    assert clip.alive.tolist() == [[True] * 4 + [False] * 2] and not clip.masks[..., 4:].any()


def test_void_is_background_and_all_objects_may_be_one():
    film = Film(stripes=lambda frame: (7, 255, 9))
    clip = sample_clip(0, film, PLAIN)
    np.testing.assert_array_equal(clip.masks[0, 0, 0, ::4].argmax(-1), [1, 0, 2, 0, 0, 0])
    merged = sample_clip(0, film, _config(binary=True))
    np.testing.assert_array_equal(merged.masks[0, 0, 0, ::4].argmax(-1), [1, 0, 1, 0, 0, 0])
    assert merged.alive.tolist() == [[True, True, False]]


def test_objects_are_chosen_by_the_first_frame_or_by_any():
    film = Film(length=3, stripes=lambda frame: (1, 2) if frame == 2 else (1,))
    first, any_frame = (sample_clip(0, film, _config(first_frame=choice)) for choice in (True, False))
    assert first.alive.tolist() == [[True, True, False]] and not first.masks[0, 2, 0, 4:8, 1:].any()
    assert any_frame.alive.tolist() == [[True, True, True]] and any_frame.masks[0, 2, 0, 4:8, 2].all()


def test_clips_start_where_there_is_an_object():
    film = Film(stripes=lambda frame: (1,) if frame >= 12 else ())
    starts = [(_frames(clip)[0], bool(clip.alive[0, 1])) for clip in _many(film, PLAIN)]
    assert np.mean([start >= 12 and alive for start, alive in starts]) > 0.9
    assert all(alive == (start >= 12) for start, alive in starts)
    nothing = sample_clip(0, Film(stripes=lambda frame: ()), PLAIN)
    assert nothing.alive.tolist() == [[True, False, False]] and nothing.masks[..., 0].all()


def test_small_objects_get_no_slot():
    film = Film(stripes=lambda frame: (1, 1, 2))  # a third and a sixth of the frame
    assert sample_clip(0, film, _config(min_area=0.2)).alive.tolist() == [[True, True, False]]
    assert sample_clip(0, film, _config(min_area=0.1)).alive.tolist() == [[True, True, True]]


def test_crops_show_as_much_of_an_object_as_a_slot_asks_for():
    film = Film(stripes=lambda frame: (1,))  # a third of a crop that shows all of it
    clips = _many(film, _config(num_frames=1, crop=(0.5, 0.5), min_area=0.3))
    assert np.mean([clip.alive[0, 1] for clip in clips]) > 0.9


def test_flow_goes_with_its_frames():
    config = _config(flow=True)
    for clip in _many(Film(length=6), config):
        frames = _frames(clip)
        assert np.diff(frames).tolist() == [1, 1] and frames[-1] < 5
        np.testing.assert_array_equal(clip.flow[0, :, 3, 3, 0], frames)
    split = Film(annotated=(0, 2, 3, 4, 9))
    assert {tuple(_frames(clip)) for clip in _many(split, config)} == {(2, 3, 4)}
    with pytest.raises(InputError, match="has not 3 annotated frames in a row with a frame after them"):
        sample_clip(0, Film(length=3), config)


def test_crop_and_augmentation_reach_the_frames_and_size_is_theirs():
    film = Film(stripes=lambda frame: (1, 2, 0, 3, 1))
    plain, zoomed = (sample_clip(0, film, _config(crop=crop, size=(8, 8))).masks for crop in (None, (0.5, 0.5)))
    assert zoomed.shape == (1, 3, 8, 8, 3) and (plain != zoomed).any()
    grown = Augmentation(clip=AffineRange(scale=(2.0, 2.0)))
    assert (sample_clip(0, film, _config(augmentation=grown)).masks != sample_clip(0, film, PLAIN).masks).any()


def test_a_static_clip_is_one_frame_that_moves():
    moving = Augmentation(frame=AffineRange(shift=0.3))
    config = _config(static=True, flow=True, augmentation=moving)
    clip = sample_clip(0, Film(length=1), config)
    assert _frames(clip) == [0, 0, 0] and clip.flow.shape == (1, 3, HEIGHT, WIDTH, 2)
    assert (clip.masks[0, 0] != clip.masks[0, 1]).any() and np.abs(clip.flow[0, 0]).max() > 0.1
    assert len({tuple(_frames(clip)) for clip in _many(Film(), config)}) > 10
    assert sample_clip(0, Film(length=1), dataclasses.replace(config, flow=False)).flow is None


def test_a_sequence_that_is_too_short():
    with pytest.raises(InputError, match="film has not 3 annotated frames"):
        sample_clip(0, Film(annotated=(0, 4)), PLAIN)
    assert sample_clip(0, Film(annotated=(0, 4)), _config(masks=False)).masks is None


def test_frames_and_masks_of_different_sizes():
    film = Film()
    film.mask = lambda index: np.zeros((4, 4), np.uint8)
    with pytest.raises(InputError, match="of film are 4x4 and 24x16"):
        sample_clip(0, film, PLAIN)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"num_frames": 0}, "has one of each"),
        ({"num_objects": 0}, "has one of each"),
        ({"max_skip": ()}, "from step 0 on"),
        ({"max_skip": ((5, 2),)}, "from step 0 on"),
        ({"max_skip": ((0, 2), (0, 3))}, "from step 0 on"),
        ({"max_skip": ((0, 0),)}, "from step 0 on"),
        ({"min_skip": 0, "max_skip": ((0, 4),)}, "min_skip 0: want at least 1"),
        ({"min_skip": 3, "max_skip": ((0, 4), (9, 2))}, "min_skip 3: .* no more than max_skip"),
        ({"crop": (0.5, 1.5)}, "smallest <= largest"),
        ({"flow": True, "reverse": 0.5}, "next frame of the sequence"),
        ({"flow": True, "max_skip": ((0, 1), (9, 2))}, "next frame of the sequence"),
    ],
)
def test_clips_that_cannot_be(options, match):
    with pytest.raises(InputError, match=match):
        _config(**options)


def _write_folder(root: Path) -> None:
    film = Film(length=4)
    for index in range(4):
        frame = root / "JPEGImages" / "480p" / "film" / f"{index:05d}.png"
        frame.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(film.image(index)).save(frame)
        if index < 3:
            (root / "flow" / "film").mkdir(parents=True, exist_ok=True)
            write_flow(root / "flow" / "film" / f"{index:05d}.flo", film.flow(index), KNOWN)
            write_mask(root / "Annotations" / "480p" / "film" / f"{index:05d}.png", film.mask(index))


def _prepared(root: Path) -> PreparedSequence:
    """The folder as `prepare_dataset` would have it."""
    read = lambda path: path.read_bytes() if path.is_file() else b""  # noqa: E731
    stems = [f"{index:05d}" for index in range(4)]
    record = {
        "frames": [stem.encode() for stem in stems],
        "images": [read(root / "JPEGImages/480p/film" / f"{stem}.png") for stem in stems],
        "masks": [read(root / "Annotations/480p/film" / f"{stem}.png") for stem in stems],
        "flows": [read(root / "flow/film" / f"{stem}.flo") for stem in stems],
    }
    return PreparedSequence("film", "1110", lambda: record)


@pytest.mark.parametrize("kind", ["folder", "records", "records and a folder of flow"])
def test_sequences_are_read_in_any_order(kind, tmp_path):
    _write_folder(tmp_path)
    source = list_sequences(tmp_path)[0] if kind == "folder" else _prepared(tmp_path)
    source = source if kind == "records" else source.with_flow_folder(tmp_path / "flow")
    assert isinstance(source, ClipSource) and (source.name, len(source), source.annotated) == ("film", 4, (0, 1, 2))
    film = Film(length=4)
    for index in (2, 0, 1):
        np.testing.assert_array_equal(source.image(index), film.image(index))
        np.testing.assert_array_equal(source.mask(index), film.mask(index))
        np.testing.assert_array_equal(source.flow(index), np.where(KNOWN[..., None], film.flow(index), 0))
    clip = sample_clip(0, source, _config(flow=True))
    assert _frames(clip) == [0, 1, 2] and clip.flow[0, :, 0, 0, 0].tolist() == [0, 1, 2]
    with pytest.raises(InputError, match="no flow"):
        source.flow(3)
    with pytest.raises(InputError, match="frame 00003 of film has no mask"):
        source.mask(3)


def test_files_that_cannot_be_read_are_named(tmp_path):
    _write_folder(tmp_path)
    (sequence,) = list_sequences(tmp_path)
    with pytest.raises(InputError, match="frame 00001 of film has no flow: give a folder"):
        sequence.flow(1)
    sequence.image_paths[1].write_bytes(b"no image")
    for source in (sequence, _prepared(tmp_path)):
        with pytest.raises(InputError, match="film/00001.* cannot be read"):
            sample_clip(0, source, PLAIN)


@pytest.mark.parametrize("wrong", [{"crop": (0.5, 1.0)}, {"static": True}, {"augmentation": Augmentation(flip=0.5)}])
def test_proposals_are_of_frames_as_they_are(wrong):
    with pytest.raises(InputError, match="proposals are of whole frames"):
        ClipConfig(num_proposals=3, **wrong)


def test_sources_without_proposals_say_so():
    with pytest.raises(InputError, match="has no proposals"):
        sample_clip(0, Film(), ClipConfig(size=(16, 24), num_proposals=3))
