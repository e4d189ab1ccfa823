"""Images, masks, flow and boxes under affine maps from the pixels (x, y, 1) of a source to those of the result."""

import numpy as np

__all__ = ["move_boxes", "move_flow", "resample", "resample_nearest", "shift_map"]


def shift_map(x: float, y: float) -> np.ndarray:
    """Returns the map that adds (x, y)."""
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


def resample(array: np.ndarray, matrix: np.ndarray, size: tuple[int, int], *, reflect: bool = True) -> np.ndarray:
    """Interpolates linearly; what shrinks is averaged first, since linear interpolation alone would skip pixels."""
    import cv2

    height, width = array.shape[:2]
    shrink = np.minimum(1.0, np.linalg.norm(matrix[:2, :2], axis=0))
    columns, rows = (max(1, round(side * factor)) for side, factor in zip((width, height), shrink, strict=True))
    if (rows, columns) != (height, width):
        array = cv2.resize(array, (columns, rows), interpolation=cv2.INTER_AREA)
        matrix = matrix @ shift_map(-0.5, -0.5) @ np.diag([width / columns, height / rows, 1.0]) @ shift_map(0.5, 0.5)
    border = cv2.BORDER_REFLECT_101 if reflect else cv2.BORDER_CONSTANT
    return cv2.warpAffine(array, matrix[:2], size[::-1], flags=cv2.INTER_LINEAR, borderMode=border)


def resample_nearest(mask: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Takes the nearest pixel; beyond the border lies zero."""
    import cv2

    return cv2.warpAffine(mask, matrix[:2], size[::-1], flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)


def move_flow(flow: np.ndarray, here: np.ndarray, there: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resamples a field between two frames, of which each has its own map; its vectors follow both.

    What is seen at q came from `p = here^-1 q` and goes to `there (p + flow(p))`.
    """
    relative = (there - here) @ np.linalg.inv(here)
    grid = np.stack(np.meshgrid(np.arange(size[1]), np.arange(size[0])), axis=-1)
    own = resample(flow, here, size, reflect=False) @ there[:2, :2].T
    return (own + grid @ relative[:2, :2].T + relative[:2, 2]).astype(np.float32)


def move_boxes(boxes: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns the boxes of the moved corners, cut at the border."""
    corners = boxes[:, [[0, 1], [2, 1], [0, 3], [2, 3]]] - 0.5
    corners = corners @ matrix[:2, :2].T + matrix[:2, 2] + 0.5
    ends = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=-1)
    return np.clip(ends, 0, [size[1], size[0]] * 2).astype(boxes.dtype)
