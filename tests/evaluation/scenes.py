"""Small masks in which J can be told by counting: a box ten pixels wide that moves by one pixel in each frame."""

import numpy as np

from jaxvos.data import write_mask
from jaxvos.evaluation import score_folders

SIZE = (24, 40)


def square(label=1, *, shift=0, size=SIZE, other=None):
    mask = np.zeros(size, np.uint8)
    mask[4:12, 5 + shift : 15 + shift] = label
    if other is not None:
        mask[14:20, 20:30] = other
    return mask


def write(folder, masks, *, first=0, step=1):
    for index, mask in enumerate(masks):
        write_mask(folder / f"{first + index * step:05d}.png", mask)
    return folder


def moving(label=1, *, frames=5, off=0, other=None):
    return [square(label, shift=index + off, other=other) for index in range(frames)]


def score(predictions, truth, **options):
    return score_folders(predictions, truth, progress=False, **options)
