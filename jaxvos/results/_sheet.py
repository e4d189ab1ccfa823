"""A contact sheet of a video whose length is not known before its end."""

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jaxvos.drawing import contact_sheet, evenly_spaced

__all__ = ["Sheet"]

_TILES, _TILE_SIDE = 12, 640


class Sheet:
    """Keeps evenly spaced frames of a video of unknown length, made small: every 2^j-th, thinned as they get many."""

    def __init__(self) -> None:
        self._kept: list[tuple[str, UInt8[np.ndarray, "h w 3"]]] = []
        self._stride, self._seen = 1, 0

    def add(self, label: str, image: UInt8[np.ndarray, "h w 3"]) -> None:
        if self._seen % self._stride == 0:
            small = Image.fromarray(image)
            small.thumbnail((_TILE_SIDE, _TILE_SIDE), Image.Resampling.BOX)
            self._kept.append((label, np.asarray(small)))
            if len(self._kept) == 2 * _TILES:
                self._kept, self._stride = self._kept[::2], 2 * self._stride
        self._seen += 1

    def draw(self, *, columns: int = 4) -> UInt8[np.ndarray, "h w 3"]:
        labels, images = zip(*(self._kept[i] for i in evenly_spaced(len(self._kept), _TILES)), strict=True)
        return contact_sheet(images, columns=columns, labels=labels)
