"""Proposals to and from COCO JSON, where every mask is one of a whole frame."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxvos.data._coco import FORMAT, CocoVideo, Detection
from jaxvos.data._polygons import fill_polygons
from jaxvos.data._rle import decode_rle, encode_rle
from jaxvos.data._video_proposals import VideoProposals, best_proposals
from jaxvos.errors import InputError
from jaxvos.ops import crop_masks, mask_boxes, paste_masks
from jaxvos.system import Proposals

__all__ = ["coco_content", "proposals_of_coco"]

_MASK_SIZE = 28  # of Mask R-CNN
_GROUP = 16  # full-frame masks in memory at a time; always so many, so that little is compiled


def coco_content(proposals: VideoProposals) -> dict[str, Any]:
    """Returns the JSON object that `write_proposals` documents."""
    h, w = proposals.size
    fields: Any = proposals.proposals  # of NumPy
    boxes, masks, scores, valid = fields
    annotations = []
    places = np.argwhere(valid)
    for start in range(0, len(places), _GROUP):
        group = places[start:start + _GROUP]
        with _on_cpu():
            pixels = _paste(_take(masks, group), _take(boxes, group), proposals.size)
        for place, mask in zip(group.tolist(), np.asarray(pixels), strict=False):
            left, top, right, bottom = boxes[*place].tolist()
            annotations.append({
                "id": len(annotations) + 1, "image_id": place[0], "category_id": 1,
                "bbox": [left, top, right - left, bottom - top], "score": scores[*place].item(),
                "area": int(mask.sum()), "iscrowd": 0, "segmentation": encode_rle(mask),
            })  # fmt: skip
    return {
        "info": {"description": f"object proposals of {proposals.video}", "jaxvos_format": FORMAT,
                 "video": proposals.video, "detector": proposals.detector},
        "images": [{"id": i, "file_name": name, "height": h, "width": w} for i, name in enumerate(proposals.names)],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "object"}],
    }  # fmt: skip


def proposals_of_coco(content: CocoVideo, path: Path, *, num_proposals: int | None) -> VideoProposals:
    """Unpacks the masks of the best entries of each frame and crops them to their boxes.

    Args:
        content: of the file.
        path: what the messages name.
        num_proposals: `m`; the most that a frame has where it is None.

    Raises:
        InputError: if a segmentation is damaged or of another size than its frame.
    """
    counts = np.bincount([detection.frame for detection in content.detections], minlength=1)
    t, m = len(content.names), num_proposals or max(1, int(counts.max()))
    boxes, masks = np.zeros((t, m, 4), np.float32), np.ones((t, m, _MASK_SIZE, _MASK_SIZE), np.float32)
    scores, valid = np.zeros((t, m), np.float32), np.zeros((t, m), bool)
    segmented = []
    for detection in sorted(content.detections, key=lambda detection: -detection.score):
        frame = detection.frame
        place = int(valid[frame].sum())
        if place == m:
            continue
        boxes[frame, place] = detection.box or 0  # zeros: not known yet
        scores[frame, place], valid[frame, place] = detection.score, True
        if detection.segmentation is not None:
            segmented.append(((frame, place), detection))
    for start in range(0, len(segmented), _GROUP):
        group, detections = zip(*segmented[start:start + _GROUP], strict=True)
        group = np.array(group)
        full = np.zeros((_GROUP, *content.size), bool)
        full[:len(group)] = [_mask(detection, content.size, path) for detection in detections]
        with _on_cpu():
            cropped = _crop(full, _take(boxes, group))
        for field, values in zip((boxes, masks), cropped, strict=True):
            field[tuple(group.T)] = np.asarray(values)[:len(group)]
    fields: Any = (boxes, masks, scores, valid)
    stacked = best_proposals(Proposals(*fields), num_proposals=m)
    return VideoProposals(content.video, content.names, content.size, stacked, content.detector)


def _mask(detection: Detection, size: tuple[int, int], path: Path) -> Bool[np.ndarray, "h w"]:
    run_lengths = isinstance(detection.segmentation, dict)
    try:
        mask = decode_rle(detection.segmentation) if run_lengths else fill_polygons(detection.segmentation, size)
    except InputError as error:
        raise InputError(f"entry {detection.number} of {path}: {error}") from error
    if mask.shape != size:
        raise InputError(f"entry {detection.number} of {path} is a mask of {mask.shape[1]}x{mask.shape[0]} but its "
                         f"frame is {size[1]}x{size[0]} (width x height): make proposals again for this video")
    return mask


def _take(field: Float[np.ndarray, "t m ..."], places: Int[np.ndarray, "n 2"]) -> Float[np.ndarray, "group ..."]:
    """Takes the proposals at these places (frame, proposal), and zeros up to one group."""
    return np.pad(field[tuple(places.T)], [(0, _GROUP - len(places))] + [(0, 0)] * (field.ndim - 2))


def _on_cpu() -> AbstractContextManager[Any]:
    return jax.default_device(jax.local_devices(backend="cpu")[0])


_paste = jax.jit(lambda masks, boxes, size: paste_masks(masks, boxes, size) > 0.5, static_argnums=2)


@jax.jit
def _crop(masks: Bool[Array, "m h w"], boxes: Float[Array, "m 4"]) -> tuple[Array, Array]:
    """Returns the boxes, tight ones where they are zero, and the masks inside them."""
    boxes = jnp.where(jnp.any(boxes != 0, axis=-1, keepdims=True), boxes, mask_boxes(masks))
    return boxes, crop_masks(masks.astype(jnp.float32), boxes, size=_MASK_SIZE)
