"""Flow files round trip byte for byte, agree with the golden values and are refused when damaged."""

import io

import cv2
import numpy as np
import pytest

from jaxvos.data import flow_from_folder, read_flow, read_pfm, write_flow
from jaxvos.data._flow_files import flow_size
from jaxvos.errors import InputError


def _flow(height=7, width=5) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 20, (height, width, 2)).astype(np.float32)


def test_flo_is_exact(tmp_path):
    flow = _flow()
    write_flow(tmp_path / "new" / "f.flo", flow)
    read, valid = read_flow(tmp_path / "new" / "f.flo")
    assert np.array_equal(read, flow) and valid.all() and read.dtype == np.float32 and read.flags.writeable
    content = (tmp_path / "new" / "f.flo").read_bytes()
    assert content[:12] == b"PIEH" + bytes([5, 0, 0, 0, 7, 0, 0, 0]) and len(content) == 12 + 8 * 35


def test_png_is_exact_to_a_sixty_fourth(tmp_path):
    flow = _flow()
    valid = np.ones(flow.shape[:2], bool)
    valid[2, 3] = False
    write_flow(tmp_path / "f.png", flow, valid)
    read, known = read_flow(tmp_path / "f.png")
    assert np.array_equal(known, valid) and not read[2, 3].any()
    assert np.abs(read - flow)[valid].max() <= 1 / 128


def _pfm(
    pixels: np.ndarray, *, magic: bytes = b"PF", order: str = "<", line: bytes = b"\n", scale: str = "1.0"
) -> bytes:
    """Writes a portable float map by hand: rows from the bottom, the byte order told by the sign of the scale."""
    size = f"{pixels.shape[1]} {pixels.shape[0]}".encode()
    signed = (("-" if order == "<" else "") + scale).encode()
    return line.join([magic, size, signed, b""]) + pixels[::-1].astype(f"{order}f4").tobytes()


@pytest.mark.parametrize(
    "options", [{}, {"order": ">"}, {"line": b"\r\n"}, {"scale": "2.5e-1"}, {"line": b" "}], ids=str
)
def test_pfm_of_others(tmp_path, options):
    flow = _flow()
    pixels = np.concatenate([flow, np.full((*flow.shape[:2], 1), 9, np.float32)], axis=-1)
    (tmp_path / "f.pfm").write_bytes(_pfm(pixels, **options))
    read, valid = read_flow(tmp_path / "f.pfm")
    assert np.array_equal(read, flow) and valid.all() and read.dtype == np.float32 and read.flags.writeable
    assert np.array_equal(read_pfm(tmp_path / "f.pfm"), pixels) and flow_size(tmp_path / "f.pfm") == (7, 5)
    (tmp_path / "one.pfm").write_bytes(_pfm(pixels[..., 1], magic=b"Pf", **options))
    assert np.array_equal(read_pfm(tmp_path / "one.pfm")[..., 0], pixels[..., 1])


def test_pfm_is_exact(tmp_path):
    flow = _flow()
    flow[0, 0], flow[1, 0, 0], flow[2, 0, 1], flow[3, 0] = np.nan, np.inf, -0.0, 1e-42
    write_flow(tmp_path / "f.pfm", flow)
    content = (tmp_path / "f.pfm").read_bytes()
    assert content == _pfm(np.pad(flow, ((0, 0), (0, 0), (0, 1))))
    read, valid = read_flow(tmp_path / "f.pfm")
    assert read.tobytes() == flow.tobytes() and (~valid).sum() == 2
    for given in (None, valid):
        write_flow(tmp_path / "again.pfm", read, given)
        assert (tmp_path / "again.pfm").read_bytes() == content
    provided = flow_from_folder(tmp_path)(np.zeros((7, 5, 3), np.uint8), np.zeros((7, 5, 3), np.uint8), name="f")
    assert np.array_equal(provided, np.where(valid[..., None], flow, 0))


@pytest.mark.parametrize("suffix", [".flo", ".png", ".pfm"])
def test_in_memory_the_content_tells_the_format(tmp_path, suffix):
    write_flow(tmp_path / f"f{suffix}", _flow())
    stored = io.BytesIO((tmp_path / f"f{suffix}").read_bytes())
    for one, other in zip(read_flow(stored), read_flow(tmp_path / f"f{suffix}"), strict=True):
        assert np.array_equal(one, other)
    assert flow_size(tmp_path / f"f{suffix}") == (7, 5)


@pytest.mark.parametrize("suffix", [".flo", ".png", ".pfm"])
def test_flow_of_which_nothing_is_known(tmp_path, suffix):
    path = tmp_path / f"f{suffix}"
    for call in (
        lambda: write_flow(path, np.full((2, 2, 2), np.nan, np.float32)),
        lambda: write_flow(path, _flow(), np.zeros((7, 5), bool)),
    ):
        with pytest.raises(InputError, match=f"no vector of flow .*f{suffix} is known .all are NaN"):
            call()
        assert not path.exists()
    write_flow(path, _flow())
    content = bytearray(path.read_bytes())
    if suffix == ".png":
        content = cv2.imencode(".png", np.zeros((7, 5, 3), np.uint16))[1].tobytes()
    else:
        start = len(b"PIEH") + 8 if suffix == ".flo" else len(b"PF 5 7 -1.0 ")
        content[start:] = np.full((len(content) - start) // 4, np.nan, "<f4").tobytes()
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"no vector of flow .*f{suffix} is known"):
        read_flow(path)


@pytest.mark.parametrize("suffix", [".flo", ".png", ".pfm"])
def test_unknown_vectors(tmp_path, suffix):
    flow = _flow()
    flow[0, 0, 1], flow[1, 1, 0], flow[2, 2], flow[3, 3, 0] = np.nan, 1.666e9, -1e10, np.inf
    expected = np.ones(flow.shape[:2], bool)
    expected[range(4), range(4)] = False
    write_flow(tmp_path / f"f{suffix}", flow)
    assert np.array_equal(read_flow(tmp_path / f"f{suffix}")[1], expected)
    expected[5, 0] = False
    write_flow(tmp_path / f"f{suffix}", flow, expected)
    read, valid = read_flow(tmp_path / f"f{suffix}")
    assert np.array_equal(valid, expected)
    if suffix != ".png":  # an unknown value that was there stays, one that was not is told
        assert read[1, 1, 0] == np.float32(1.666e9) and np.isnan(read[0, 0, 1])
        assert (read[5, 0] == (1e10 if suffix == ".flo" else np.inf)).all()


def test_large_flow_does_not_fit_the_png(tmp_path):
    with pytest.raises(InputError, match="600 pixels does not fit .* write a .flo"):
        write_flow(tmp_path / "f.png", np.full((2, 2, 2), 600, np.float32))
    assert not list(tmp_path.iterdir())
    edge = np.array([[[-512.0, 511.984375]]], np.float32)
    write_flow(tmp_path / "f.png", edge)
    assert np.array_equal(read_flow(tmp_path / "f.png")[0], edge)


def test_bad_files(tmp_path):
    from PIL import Image

    write_flow(tmp_path / "whole.flo", _flow())
    content = (tmp_path / "whole.flo").read_bytes()
    float_map = _pfm(np.ones((7, 5, 3)))
    for name, bytes_, match in (
        ("cut.flo", content[:-3], "declares 5x7 pixels, 292 bytes, but has 289"),
        ("head.flo", content[:6], "damaged or cut short"),
        ("long.flo", content + b"0", "damaged"),
        ("minus.flo", content[:4] + b"\xff" * 8 + content[12:], "damaged"),
        ("text.flo", b"hello", "does not begin with PIEH"),
        ("none.flo", b"", "PIEH"),
        ("cut.pfm", float_map[:-3], "declares 5x7 pixels, 432 bytes, but has 429"),
        ("long.pfm", float_map + b"0", "damaged"),
        ("zero.pfm", _pfm(np.ones((7, 5, 3)), scale="0.0"), "not a .pfm file"),
        ("size.pfm", b"PF\n0 7\n-1.0\n", "declares 0x7"),
        ("head.pfm", float_map[:4], "does not begin with PF or Pf, width"),
        ("text.pfm", b"hello", "does not begin with PF"),
        ("none.pfm", b"", "PF or Pf"),
        ("grey.pfm", _pfm(np.ones((7, 5)), magic=b"Pf"), "has one channel"),
        ("text.png", b"hello", "cannot be read"),
        ("none.png", b"", "cannot be read"),
    ):
        (tmp_path / name).write_bytes(bytes_)
        for call in (read_flow, flow_size):
            with pytest.raises(InputError, match=match) as error:
                call(tmp_path / name)
            assert name in str(error.value) and "\n" not in str(error.value)
    Image.new("RGB", (4, 4)).save(tmp_path / "colour.png")
    for name, match in (
        ("colour.png", "not a KITTI flow PNG"),
        ("missing.flo", "no flow file"),
        ("whole.pfm", "no flow file"),
    ):
        with pytest.raises(InputError, match=match):
            read_flow(tmp_path / name)
    (tmp_path / "f.exr").write_bytes(b"Pf")
    for call in (lambda: read_flow(tmp_path / "f.exr"), lambda: write_flow(tmp_path / "f.exr", _flow())):
        with pytest.raises(InputError, match="not named as a flow file"):
            call()


@pytest.mark.data
@pytest.mark.parametrize("name", ["1x1", "5x7", "33x20"])
def test_golden_round_trip_of_flo(golden_dir, tmp_path, name):
    source = golden_dir / f"flow/roundtrip_{name}.flo"
    flow, valid = read_flow(source)
    expected = np.load(golden_dir / "flow/crops.npz")[f"rt_{name}"]
    assert flow.tobytes() == expected.tobytes()
    for given in (None, valid):
        write_flow(tmp_path / "f.flo", flow, given)
        assert (tmp_path / "f.flo").read_bytes() == source.read_bytes()


@pytest.mark.data
@pytest.mark.parametrize("name", ["Grove2", "RubberWhale"])
def test_golden_kitti(golden_dir, tmp_path, name):
    source = golden_dir / f"flow/kitti_{name}.png"
    golden = np.load(golden_dir / "flow/crops.npz")
    flow, valid = read_flow(source)
    assert np.array_equal(valid, golden[f"{name}_valid"])
    truth = golden[f"{name}_gt_q"].astype(np.float32) / 256
    assert np.abs(flow - truth)[valid].max() <= 1 / 128
    if name == "Grove2":
        assert np.array_equal(flow, np.stack([golden["Grove2_kitti_u"], golden["Grove2_kitti_v"]], axis=-1))
    write_flow(tmp_path / "f.png", flow, valid)
    again, original = (cv2.imread(str(p), cv2.IMREAD_UNCHANGED) for p in (tmp_path / "f.png", source))
    assert again.dtype == np.uint16 and np.array_equal(again, original)


@pytest.mark.data
def test_real_ground_truth(data_dir, tmp_path):
    flow, valid = read_flow(data_dir / "flow/Dimetrodon/flow10.flo")
    assert flow.shape == (388, 584, 2) and (~valid).sum() == 10772
    assert np.linalg.norm(flow[valid].astype(np.float64), axis=-1).max() == pytest.approx(4.669951543761293)
    write_flow(tmp_path / "f.flo", flow, valid)
    assert (tmp_path / "f.flo").read_bytes() == (data_dir / "flow/Dimetrodon/flow10.flo").read_bytes()
