"""Masks survive the disk as ids, and what is not a mask is refused in one line that says what to do."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from jaxvos.data import check_mask_size, check_objects, davis_palette, read_mask, write_mask
from jaxvos.errors import InputError


def _one_line(error) -> str:
    message = str(error.value)
    assert "\n" not in message and len(message) < 300
    return message


def _smooth_disc(size: int = 64, radius: int = 24) -> Image.Image:
    large = Image.new("L", (8 * size, 8 * size))
    ImageDraw.Draw(large).ellipse([8 * (size // 2 - radius)] * 2 + [8 * (size // 2 + radius)] * 2, fill=255)
    return large.resize((size, size), Image.Resampling.BICUBIC)


def test_palette_is_that_of_davis():
    palette = davis_palette()
    assert palette[:8].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128], [128, 0, 128],
                                    [0, 128, 128], [128, 128, 128]]
    assert palette[[21, 255]].tolist() == [[128, 64, 128], [224, 224, 192]]
    assert len(np.unique(palette, axis=0)) == 256


@pytest.mark.data
def test_palette_is_that_of_the_files(data_dir):
    with Image.open(data_dir / "multi_object/schoolgirls_masks/00000.png") as image:
        stored = np.array(image.getpalette("RGB")).reshape(-1, 3)
    assert np.abs(davis_palette()[:22] - stored[:22].astype(int)).max() <= 1  # DAVIS has 191 for 192; greys after 21


def test_every_id_survives_the_disk(tmp_path):
    mask = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for scale in (1, 4):  # ids one pixel wide would be smooth edges in a grey image; four pixels wide they never are
        large = mask.repeat(scale, 0).repeat(scale, 1)
        path = tmp_path / "new" / f"{scale}.png"
        write_mask(path, large)
        with Image.open(path) as image:
            assert image.mode == "P"
            assert np.array_equal(np.array(image.convert("RGB")), davis_palette()[large])
            assert np.array_equal(np.array(image), large)
    assert np.array_equal(read_mask(tmp_path / "new" / "4.png"), large)
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["1.png", "4.png"]


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (2, 2), (480, 854)])
def test_any_size_round_trips(tmp_path, shape):
    mask = (np.indices(shape).sum(0) % 3).astype(np.uint8)
    write_mask(tmp_path / "m.png", mask)
    assert np.array_equal(read_mask(tmp_path / "m.png"), mask)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("mode", ["P", "L"])
def test_any_bit_depth(tmp_path, mode, bits):
    ids = (np.arange(64).reshape(8, 8) % min(2**bits, 16)).astype(np.uint8)
    image = Image.fromarray(ids)
    if mode == "P":
        image.putpalette(davis_palette()[: 2**bits].tobytes())
        image.save(tmp_path / "m.png", bits=bits)
    elif bits == 1:
        Image.fromarray(ids.astype(bool)).save(tmp_path / "m.png")
    else:
        _save_grey(tmp_path / "m.png", ids, bits)
    assert np.array_equal(read_mask(tmp_path / "m.png"), ids)


def _save_grey(path, ids, bits):
    """Writes a grey PNG of this bit depth by hand: Pillow only writes 1, 8 and 16."""
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    planes = (ids[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    rows = np.packbits(planes.reshape(len(ids), -1).astype(np.uint8), axis=1)
    body = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", ids.shape[1], ids.shape[0], bits, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body))
                     + chunk(b"IEND", b""))


def test_sixteen_bits_are_read_while_ids_fit(tmp_path):
    Image.fromarray(np.array([[0, 255]], np.uint16)).save(tmp_path / "fits.png")
    assert read_mask(tmp_path / "fits.png").tolist() == [[0, 255]]
    Image.fromarray(np.array([[0, 300]], np.uint16)).save(tmp_path / "large.png")
    with pytest.raises(InputError, match="up to 300") as error:
        read_mask(tmp_path / "large.png")
    _one_line(error)


def test_grey_masks_of_davis_2016_are_legal(tmp_path):
    mask = np.zeros((20, 30), np.uint8)
    mask[5:9, 5:9] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    assert np.array_equal(read_mask(tmp_path / "m.png"), mask)


def test_many_thin_but_close_ids_are_legal(tmp_path):
    mask = np.zeros((20, 60), np.uint8)
    mask[3, 2:32:2] = np.arange(1, 16)  # fifteen objects of one pixel
    mask[10:15] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    assert np.array_equal(read_mask(tmp_path / "m.png"), mask)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "CMYK"])
def test_colours_are_refused(tmp_path, mode):
    path = tmp_path / "colours.tiff"
    Image.new(mode, (8, 8)).save(path)
    with pytest.raises(InputError, match="not palette indices.*save as indexed PNG") as error:
        read_mask(path)
    assert str(path) in _one_line(error) and "look" not in str(error.value)


def test_smooth_edges_are_refused(tmp_path):
    disc = _smooth_disc()
    disc.save(tmp_path / "grey.png")
    Image.merge("RGB", [disc, Image.new("L", disc.size), Image.new("L", disc.size)]).save(tmp_path / "colour.png")
    _smooth_disc(size=24, radius=5).save(tmp_path / "small.png")
    for name in ("grey", "colour", "small"):
        with pytest.raises(InputError, match="anti-alias") as error:
            read_mask(tmp_path / f"{name}.png")
        assert f"{name}.png" in _one_line(error)


def test_number_of_levels_is_bounded():
    levels = np.arange(65, dtype=np.uint8).repeat(4)[None].repeat(4, 0)
    with pytest.raises(InputError, match="65 distinct"):
        check_objects(levels, "m.png")
    check_objects(levels, "m.png", max_objects=65)


def test_jpeg_is_refused(tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "m.jpg")
    with pytest.raises(InputError, match="JPEG"):
        read_mask(tmp_path / "m.jpg")


def test_unreadable_files_are_refused(tmp_path):
    rng = np.random.default_rng(0)
    write_mask(tmp_path / "whole.png", rng.integers(0, 4, (64, 64), dtype=np.uint8))
    content = (tmp_path / "whole.png").read_bytes()
    for cut in (len(content) // 2, 900, 200, 30, 10, 0):
        (tmp_path / "cut.png").write_bytes(content[:cut])
        with pytest.raises(InputError, match="cut.png cannot be read") as error:
            read_mask(tmp_path / "cut.png")
        _one_line(error)
    (tmp_path / "text.png").write_text("not an image")
    for name, match in (("text.png", "cannot be read"), ("none.png", "does not exist"), (".", "is a folder")):
        with pytest.raises(InputError, match=match) as error:
            read_mask(tmp_path / name)
        _one_line(error)


def test_size_of_the_frame():
    mask = np.zeros((480, 854), np.uint8)
    check_mask_size(mask, (480, 854), "m.png")
    with pytest.raises(InputError, match="m.png is 854x480 but its frame is 432x240"):
        check_mask_size(mask, (240, 432), "m.png")


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    write_mask(tmp_path / "m.png", np.ones((4, 4), np.uint8))
    before = (tmp_path / "m.png").read_bytes()

    def half(self, path, **_):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", half)
    with pytest.raises(InputError, match="No space left on device"):
        write_mask(tmp_path / "m.png", np.zeros((4, 4), np.uint8))
    assert (tmp_path / "m.png").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.png"]


def test_unwritable_place(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        write_mask(tmp_path / "file" / "m.png", np.zeros((4, 4), np.uint8))


@pytest.mark.data
def test_real_masks(data_dir):
    schoolgirls = read_mask(data_dir / "multi_object/schoolgirls_masks/00000.png")
    assert schoolgirls.shape == (240, 432) and np.unique(schoolgirls).tolist() == list(range(8))
    bear = read_mask(data_dir / "davis2016/Annotations/256p/bear/00000.png")
    assert np.unique(bear).tolist() == [0, 255]


@pytest.mark.data
def test_every_golden_mask_is_accepted(golden_dir, data_dir):
    paths = [*golden_dir.glob("vos/*/*/*.png")][::7] + [*data_dir.glob("multi_object/**/Annotations/**/*.png")]
    paths += [*data_dir.glob("davis2016/Annotations/*/*/*.png")][::29]
    for path in paths:
        read_mask(path)
    assert len(paths) > 50
