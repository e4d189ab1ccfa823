"""Optical flow as files: Middlebury's .flo, KITTI's 16-bit PNG and the .pfm of Scene Flow."""

import io
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32

from jaxvos.errors import InputError
from jaxvos.files import atomic_path

__all__ = ["FLOW_SUFFIXES", "flow_size", "read_flow", "read_pfm", "write_flow"]

FLOW_SUFFIXES = (".flo", ".png", ".pfm")
_MAGIC = np.float32(202021.25).tobytes()  # "PIEH"
_PFM_HEADER = re.compile(rb"(PF|Pf)\s+(\d+)\s+(\d+)\s+([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?:\r\n|\s)")
_PNG_HEADER = re.compile(rb"\x89PNG\r\n\x1a\n....IHDR(....)(....)(.)(.)", re.DOTALL)
_LONGEST_HEADER = 256  # bytes
_UNKNOWN = 1e9  # a component beyond this marks an unknown vector
_WRITTEN_UNKNOWN = {".flo": 1e10, ".pfm": np.inf}
_KITTI_SCALE, _KITTI_ZERO = 64.0, 32768.0


def read_flow(path: str | Path | io.BytesIO) -> tuple[Float32[np.ndarray, "h w 2"], Bool[np.ndarray, "h w"]]:
    """Reads a flow field and which of its vectors are known.

    Args:
        path: a Middlebury `.flo` (float32, little endian), a KITTI 16-bit PNG (red dx, green dy, blue known) or a
            Scene Flow `.pfm` (dx and dy are the first of three channels): a file, whose suffix tells the format, or one
            in memory, whose content does and whose `str` the messages name.

    Returns:
        The flow `(dx, dy)` in pixels, and a mask that is False where it is unknown. Vectors of a `.flo` or `.pfm` are
        given as stored (unknown ones are above 1e9, infinite or NaN); unknown vectors of a PNG are 0.

    Raises:
        InputError: if the file is missing, truncated, in none of the formats or without any known vector.
    """
    content = path.getvalue() if isinstance(path, io.BytesIO) else None
    path = Path(str(path))
    suffix = _suffix(path) if content is None else _format(content)
    content = path.read_bytes() if content is None else content
    if suffix == ".png":
        flow, valid = _decode_kitti(content, path)
    else:
        raster = _raster(content[:_LONGEST_HEADER], len(content), path, suffix)
        if raster.channels == 1:
            raise _one_channel(path)
        flow = np.ascontiguousarray(raster.decode(content)[..., :2])
        valid = _is_known(flow)
    _require_known(valid, path)
    return flow, valid


def read_pfm(path: str | Path) -> Float32[np.ndarray, "h w c"]:
    """Reads a portable float map of one or three channels, the top row first; the size of its scale is not applied.

    Raises:
        InputError: if the file is missing, truncated or not a `.pfm`.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no file {path}: check the path")
    content = path.read_bytes()
    return _raster(content[:_LONGEST_HEADER], len(content), path, ".pfm").decode(content)


def flow_size(path: str | Path) -> tuple[int, int]:
    """Returns the height and width of a flow file in pixels, from its header and length alone.

    Raises:
        InputError: if the file is missing, truncated (a PNG excepted) or in none of the formats.
    """
    path = Path(path)
    suffix = _suffix(path)
    with path.open("rb") as file:
        head = file.read(_LONGEST_HEADER)
    if suffix != ".png":
        raster = _raster(head, path.stat().st_size, path, suffix)
        if raster.channels == 1:
            raise _one_channel(path)
        return raster.height, raster.width
    found = _PNG_HEADER.match(head)
    if found is None:
        raise _unreadable(path)
    width, height, depth, colour = (int.from_bytes(part) for part in found.groups())
    if (depth, colour) != (16, 2):
        raise _not_kitti(path)
    return height, width


def write_flow(
    path: str | Path, flow: Float32[np.ndarray, "h w 2"], valid: Bool[np.ndarray, "h w"] | None = None
) -> None:
    """Writes a flow field in the format that the suffix names, whole or not at all.

    Args:
        path: ends in `.flo` (exact), `.pfm` (exact, the third channel is 0) or `.png` (KITTI: steps of 1/64 pixel,
            from -512 to just under 512).
        flow: `(dx, dy)` in pixels.
        valid: False where the flow is unknown. With `None` a `.flo` or `.pfm` keeps every vector as it is and a PNG
            takes those that are finite and below 1e9 as known. Unknown vectors are written as 1e10 to a `.flo` and as
            infinity to a `.pfm` (or what unknown value they have), and as zeros to a PNG.

    Raises:
        InputError: for another suffix, for flow without any known vector, for known vectors outside the range of the
            PNG, or if it cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in FLOW_SUFFIXES:
        raise _unknown_format(path)
    known = _is_known(flow)
    valid = known if valid is None else valid & known
    _require_known(valid, path)
    if suffix == ".png":
        content = _kitti_bytes(flow, valid, path)
    else:
        marked = np.where((valid | ~known)[..., None], flow, np.float32(_WRITTEN_UNKNOWN[suffix]))
        content = (_flo_bytes if suffix == ".flo" else _pfm_bytes)(marked)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


class _Raster(NamedTuple):
    """Where the numbers of a `.flo` or `.pfm` are."""

    height: int
    width: int
    channels: int
    start: int  # bytes
    dtype: str
    bottom_up: bool

    def decode(self, content: bytes) -> np.ndarray:
        numbers = np.frombuffer(content, self.dtype, offset=self.start).reshape(self.height, self.width, self.channels)
        return (numbers[::-1] if self.bottom_up else numbers).astype(np.float32)


def _raster(head: bytes, length: int, path: Path, suffix: str) -> _Raster:
    raster = _flo_header(head, path) if suffix == ".flo" else _pfm_header(head, path)
    expected = raster.start + 4 * raster.channels * raster.width * raster.height
    if raster.width < 1 or raster.height < 1 or length != expected:
        raise InputError(
            f"flow {path} declares {raster.width}x{raster.height} pixels, {expected} bytes, but has "
            f"{length}: it is damaged or cut short, copy it again"
        )
    return raster


def _flo_header(head: bytes, path: Path) -> _Raster:
    if head[:4] != _MAGIC:
        raise InputError(f"{path} is not a Middlebury .flo file (it does not begin with PIEH): convert it")
    width, height = (int(n) for n in np.frombuffer(head[4:12].ljust(8, b"\0"), "<i4"))
    return _Raster(height, width, 2, 12, "<f4", bottom_up=False)


def _pfm_header(head: bytes, path: Path) -> _Raster:
    found = _PFM_HEADER.match(head)
    if found is None or float(found[4]) == 0:
        raise InputError(
            f"{path} is not a .pfm file (it does not begin with PF or Pf, width, height and a scale that "
            "is not 0): convert it"
        )
    channels, order = (3 if found[1] == b"PF" else 1), ("<" if float(found[4]) < 0 else ">")
    return _Raster(int(found[3]), int(found[2]), channels, found.end(), f"{order}f4", bottom_up=True)


def _suffix(path: Path) -> str:
    if not path.is_file():
        raise InputError(f"there is no flow file {path}: check the path")
    if path.suffix.lower() not in FLOW_SUFFIXES:
        raise _unknown_format(path)
    return path.suffix.lower()


def _format(content: bytes) -> str:
    if content.startswith(_MAGIC):
        return ".flo"
    return ".pfm" if content.startswith((b"PF", b"Pf")) else ".png"


def _is_known(flow: np.ndarray) -> np.ndarray:
    return np.all(np.abs(flow) < _UNKNOWN, axis=-1)  # false for NaN too


def _require_known(valid: np.ndarray, path: Path) -> None:
    if not valid.any():
        raise InputError(
            f"no vector of flow {path} is known (all are NaN, above 1e9 or marked as unknown): "
            "make it again, or leave it out"
        )


def _decode_kitti(content: bytes, path: Path) -> tuple[np.ndarray, np.ndarray]:
    import cv2

    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED) if content else None
    if pixels is None:
        raise _unreadable(path)
    if pixels.dtype != np.uint16 or pixels.ndim != 3 or pixels.shape[-1] != 3:
        raise _not_kitti(path)
    known, dy, dx = np.moveaxis(pixels, -1, 0)  # OpenCV reverses red, green, blue
    valid = known > 0
    flow = (np.stack([dx, dy], axis=-1).astype(np.float32) - np.float32(_KITTI_ZERO)) / np.float32(_KITTI_SCALE)
    return np.where(valid[..., None], flow, np.float32(0)), valid


def _flo_bytes(flow: np.ndarray) -> bytes:
    size = np.array([flow.shape[1], flow.shape[0]], "<i4").tobytes()
    return _MAGIC + size + np.ascontiguousarray(flow, "<f4").tobytes()


def _pfm_bytes(flow: np.ndarray) -> bytes:
    header = f"PF\n{flow.shape[1]} {flow.shape[0]}\n-1.0\n".encode()
    return header + np.pad(flow[::-1], ((0, 0), (0, 0), (0, 1))).astype("<f4").tobytes()


def _kitti_bytes(flow: np.ndarray, valid: np.ndarray, path: Path) -> bytes:
    import cv2

    scaled = np.rint(np.where(valid[..., None], flow, 0) * _KITTI_SCALE + _KITTI_ZERO)
    if scaled.min() < 0 or scaled.max() > 65535:
        raise InputError(
            f"flow up to {np.abs(flow[valid]).max():.0f} pixels does not fit into the PNG {path} "
            "(-512 to 511.98): write a .flo file"
        )
    stored = np.concatenate([scaled, np.ones_like(scaled[..., :1])], axis=-1) * valid[..., None]
    return cv2.imencode(".png", stored.astype(np.uint16)[..., ::-1])[1].tobytes()


def _unreadable(path: Path) -> InputError:
    return InputError(f"flow {path} cannot be read: it is damaged or not a PNG; copy it again")


def _not_kitti(path: Path) -> InputError:
    return InputError(
        f"flow {path} is not a KITTI flow PNG (16 bits, three channels): an image of flow colours "
        "cannot be turned back into flow; give the .flo or 16-bit file"
    )


def _one_channel(path: Path) -> InputError:
    return InputError(f"{path} has one channel, such as disparity has: flow needs the three of a PF file")


def _unknown_format(path: Path) -> InputError:
    return InputError(
        f"{path} is not named as a flow file: use .flo (Middlebury), .pfm (Scene Flow) or .png (KITTI, 16 bits)"
    )
