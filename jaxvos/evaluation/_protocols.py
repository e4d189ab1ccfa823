"""The protocols: what each compares, in which frames, how it averages, and which numbers it gives."""

import textwrap
from typing import Literal, NamedTuple

__all__ = ["PROTOCOLS", "Protocol", "Rule", "describe_protocols"]

Protocol = Literal[
    "davis16", "davis17", "davis17-unsupervised", "youtube-vos", "fbms", "visal", "youtube-objects", "segtrack", "vip",
    "saliency", "flow",
]  # fmt: skip


class Rule(NamedTuple):
    """One protocol in words."""

    compared: str
    frames: str
    averaged: str
    numbers: str

    @property
    def summary(self) -> str:
        """What a reader of the numbers has to know."""
        return f"compared: {self.compared}; frames: {self.frames}; averages: {self.averaged}"


_ENDS = "all but the first and the last"
_ANNOTATED = "all annotated"
_REGIONS = "J, F: mean, recall, decay; J&F"
_SOFT = Rule("8-bit grey maps with masks", _ANNOTATED, "over frames", "MAE, maximum and adaptive F-measure, S-measure")

PROTOCOLS: dict[str, Rule] = {
    "davis16": Rule("all labels as one foreground; 255 is void beside other labels", _ENDS, "over sequences",
                    f"{_REGIONS}; T"),
    "davis17": Rule("each label; 255 is background", _ENDS, "over objects", f"{_REGIONS}; T if asked"),
    "davis17-unsupervised": Rule(
        "each label with its proposal (at most 20, assigned one to one for the best mean J&F); 255 is left out",
        _ANNOTATED, "over objects", f"{_REGIONS}; T if asked"),
    "youtube-vos": Rule("each label", "annotated ones after an object's first",
                        "over objects; G: over J and F of seen and of unseen categories",
                        f"{_REGIONS}; with --unseen J_seen, J_unseen, F_seen, F_unseen, G"),
    "fbms": Rule("all regions as one foreground", _ANNOTATED, "over sequences",
                 f"{_REGIONS}; MAE and maximum F-measure where all predictions are grey maps"),
    "visal": _SOFT,
    "youtube-objects": Rule("all labels as one foreground", _ANNOTATED,
                            "over shots; J also over the shots of each category, and over categories",
                            f"{_REGIONS}; J of each category"),
    "segtrack": Rule("each label; instances absent from a frame do not count in mIoU", "all but the first",
                     "over objects; mIoU*: over instances, then frames; mIoU-dagger: over frames, then instances",
                     f"{_REGIONS}; mIoU*, mIoU-dagger"),
    "vip": Rule("the 20 classes of body parts, the background included; 255 is left out", _ANNOTATED,
                "over classes, of the pixels of all frames", "mIoU, accuracy"),
    "saliency": _SOFT,
    "flow": Rule(".flo, .pfm or KITTI's 16-bit PNG with the same, where the truth is known", _ANNOTATED, "over pixels",
                 "EPE, by speed too; shares above 1, 3, 5 pixels; Fl-all; angular error"),
}  # fmt: skip
"""Every protocol by name. Left out, `davis17` is taken where a first frame has several objects, else `davis16`.

J is the overlap, F the accuracy of the contour and T its (in)stability, as DAVIS defines them; J&F is the mean of J
and F. Means over objects are plain: each object weighs the same. Ground truth of fbms, visal, youtube-objects, segtrack
and vip may be the folder of the release; predictions are then named as its frames.
"""


def describe_protocols() -> str:
    """Returns the protocols as text for a terminal."""
    lines = []
    for name, rule in PROTOCOLS.items():
        text = f"{rule.compared}. Frames: {rule.frames}. Averages: {rule.averaged}. Numbers: {rule.numbers}."
        lines += [f"  {name}", *textwrap.wrap(text, 96, initial_indent=" " * 6, subsequent_indent=" " * 6)]
    return "\n".join(lines)
