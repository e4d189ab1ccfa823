"""Optical flow as files: Middlebury's .flo and KITTI's 16-bit PNG."""

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32

from jaxvos.errors import InputError
from jaxvos.files import atomic_path

__all__ = ["FLOW_SUFFIXES", "read_flow", "write_flow"]

FLOW_SUFFIXES = (".flo", ".png")
_MAGIC = np.float32(202021.25).tobytes()  # "PIEH"
_UNKNOWN = 1e9  # a component beyond this marks an unknown vector
_WRITTEN_UNKNOWN = 1e10
_KITTI_SCALE, _KITTI_ZERO = 64.0, 32768.0


def read_flow(path: str | Path) -> tuple[Float32[np.ndarray, "h w 2"], Bool[np.ndarray, "h w"]]:
    """Reads a flow field and which of its vectors are known.

    Args:
        path: a Middlebury `.flo` (float32, little endian) or a KITTI 16-bit PNG (red dx, green dy, blue known).

    Returns:
        The flow `(dx, dy)` in pixels, and a mask that is False where it is unknown. Vectors of a `.flo` are given as
        stored (unknown ones are above 1e9 or NaN); unknown vectors of a PNG are 0.

    Raises:
        InputError: if the file is missing, truncated or in neither format.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no flow file {path}: check the path")
    if path.suffix.lower() == ".flo":
        return _read_flo(path)
    if path.suffix.lower() == ".png":
        return _read_kitti(path)
    raise _unknown_format(path)


def write_flow(path: str | Path, flow: Float32[np.ndarray, "h w 2"], valid: Bool[np.ndarray, "h w"] | None = None
               ) -> None:
    """Writes a flow field in the format that the suffix names, whole or not at all.

    Args:
        path: ends in `.flo` (exact) or `.png` (KITTI: steps of 1/64 pixel, from -512 to just under 512).
        flow: `(dx, dy)` in pixels.
        valid: False where the flow is unknown. With `None` a `.flo` keeps every vector as it is and a PNG takes those
            that are finite and below 1e9 as known. Unknown vectors are written as 1e10 (or what unknown value they
            have) to a `.flo` and as zeros to a PNG.

    Raises:
        InputError: for another suffix, for known vectors outside the range of the PNG, or if it cannot be written.
    """
    path = Path(path)
    known = _is_known(flow)
    if path.suffix.lower() == ".flo":
        stored = flow if valid is None else np.where((valid | ~known)[..., None], flow, np.float32(_WRITTEN_UNKNOWN))
        size = np.array([flow.shape[1], flow.shape[0]], "<i4").tobytes()
        content = _MAGIC + size + np.ascontiguousarray(stored, "<f4").tobytes()
    elif path.suffix.lower() == ".png":
        content = _kitti_bytes(flow, known if valid is None else valid & known, path)
    else:
        raise _unknown_format(path)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def _is_known(flow: np.ndarray) -> np.ndarray:
    return np.all(np.abs(flow) < _UNKNOWN, axis=-1)  # false for NaN too


def _read_flo(path: Path) -> tuple[np.ndarray, np.ndarray]:
    content = path.read_bytes()
    if content[:4] != _MAGIC:
        raise InputError(f"{path} is not a Middlebury .flo file (it does not begin with PIEH): convert it")
    width, height = (int(n) for n in np.frombuffer(content[4:12].ljust(8, b"\0"), "<i4"))
    expected = 12 + 8 * width * height
    if width < 1 or height < 1 or len(content) != expected:
        raise InputError(f"flow {path} declares {width}x{height} pixels, {expected} bytes, but has {len(content)}: "
                         "it is damaged or cut short, copy it again")
    flow = np.frombuffer(content, "<f4", offset=12).reshape(height, width, 2).astype(np.float32)
    return flow, _is_known(flow)


def _read_kitti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    import cv2

    pixels = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED) if path.stat().st_size \
        else None
    if pixels is None:
        raise InputError(f"flow {path} cannot be read: it is damaged or not a PNG; copy it again")
    if pixels.dtype != np.uint16 or pixels.ndim != 3 or pixels.shape[-1] != 3:
        raise InputError(f"flow {path} is not a KITTI flow PNG (16 bits, three channels): an image of flow colours "
                         "cannot be turned back into flow; give the .flo or 16-bit file")
    known, dy, dx = np.moveaxis(pixels, -1, 0)  # OpenCV reverses red, green, blue
    valid = known > 0
    flow = (np.stack([dx, dy], axis=-1).astype(np.float32) - np.float32(_KITTI_ZERO)) / np.float32(_KITTI_SCALE)
    return np.where(valid[..., None], flow, np.float32(0)), valid


def _kitti_bytes(flow: np.ndarray, valid: np.ndarray, path: Path) -> bytes:
    import cv2

    scaled = np.rint(np.where(valid[..., None], flow, 0) * _KITTI_SCALE + _KITTI_ZERO)
    if scaled.min() < 0 or scaled.max() > 65535:
        raise InputError(f"flow up to {np.abs(flow[valid]).max():.0f} pixels does not fit into the PNG {path} "
                         "(-512 to 511.98): write a .flo file")
    stored = np.concatenate([scaled, np.ones_like(scaled[..., :1])], axis=-1) * valid[..., None]
    return cv2.imencode(".png", stored.astype(np.uint16)[..., ::-1])[1].tobytes()


def _unknown_format(path: Path) -> InputError:
    return InputError(f"{path} is not named as a flow file: use .flo (Middlebury) or .png (KITTI, 16 bits)")
