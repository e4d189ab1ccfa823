"""Bars and curves as inline SVG."""

import math
from collections.abc import Mapping, Sequence

from jaxvos.data import davis_palette
from jaxvos.evaluation._markup import Markup, element

__all__ = ["bar", "curves", "legend"]

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 720, 190, 40, 10, 24
_BAR_WIDTH, _BAR_HEIGHT = 180, 12


def bar(value: float, *, limit: float, colour: str) -> Markup:
    """Draws one value from 0 to `limit`; nothing where it is no number."""
    share = 0.0 if math.isnan(value) or limit <= 0 else min(max(value / limit, 0.0), 1.0)
    track = element("rect", width=_BAR_WIDTH, height=_BAR_HEIGHT, fill="#eee")
    filled = element("rect", width=share * _BAR_WIDTH, height=_BAR_HEIGHT, fill=colour)
    return element("svg", track, filled, width=_BAR_WIDTH, height=_BAR_HEIGHT, role="img", aria_label=f"{value:.3f}")


def curves(lines: Mapping[str, Sequence[float]], frames: Sequence[str], *, name: str) -> Markup:
    """Draws a measure over the frames, a line for each object in its DAVIS colour.

    Args:
        lines: for each object, by its label or any name, a value for each of the last frames. NaN leave gaps.
        frames: names of all frames; the first and the last are written below.
        name: of the measure.
    """
    known = [value for values in lines.values() for value in values if not math.isnan(value)]
    limit = max([1.0, *known]) if max(known, default=1.0) > 1 else (1.0 if max(known, default=1.0) > 0.1 else
                                                                    max(max(known), 1e-6))  # fmt: skip
    across, down = _WIDTH - _LEFT - 10, _HEIGHT - _TOP - _BOTTOM
    parts = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = _TOP + down * (1 - share)
        parts.append(element("line", x1=_LEFT, x2=_LEFT + across, y1=y, y2=y, stroke="#ddd"))
        parts.append(element("text", f"{share * limit:.3g}", x=_LEFT - 6, y=y + 4, text_anchor="end"))
    parts += [element("text", text, x=x, y=_HEIGHT - 6, text_anchor=anchor)
              for text, x, anchor in ((frames[0], _LEFT, "start"), (frames[-1], _LEFT + across, "end"))]  # fmt: skip
    for label, values in lines.items():
        shift = len(frames) - len(values)
        points = [(_LEFT + across * (shift + i) / max(len(frames) - 1, 1), _TOP + down * (1 - value / limit))
                  for i, value in enumerate(values)]  # fmt: skip
        title = element("title", f"{name} of {label}")
        parts.append(element("path", title, d=_path(points), fill="none", stroke=_colour(label),
                             stroke_width=1.5, stroke_linecap="round"))  # fmt: skip
    return element("svg", *parts, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", aria_label=f"{name} over the frames")


def legend(labels: Sequence[str]) -> Markup:
    """Names objects in the colours of their curves."""
    return element("p", *(element("span", f"object {label} ", style=f"color:{_colour(label)}") for label in labels))


def _colour(label: str) -> str:
    red, green, blue = davis_palette()[int(label) % 256 if label.isdigit() else 4].tolist()
    return f"rgb({red},{green},{blue})"


def _path(points: Sequence[tuple[float, float]]) -> str:
    """Returns a path with a new start after each gap; a point alone is a line of no length."""
    steps, drawing = [], False
    for x, y in points:
        if math.isnan(y):
            drawing = False
            continue
        steps.append(f"L{x:.1f},{y:.1f}" if drawing else f"M{x:.1f},{y:.1f}l0,0")
        drawing = True
    return "".join(steps)
