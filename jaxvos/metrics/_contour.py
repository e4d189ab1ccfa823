"""Masks as polygons: outlines on the grid of pixel corners, simplified, and the one with the most vertices."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Int

__all__ = ["longest_contour", "polygons"]

_STRAIGHT = 0.05  # points nearer to a chord lie on it (0.1 on the reference's grid of half pixels)
_TOLERANCE = 1.5  # 3 on that grid


def longest_contour(mask: Bool[np.ndarray, "h w"]) -> Int[np.ndarray, "n 2"] | None:
    """Returns the polygon of a mask that has the most vertices, the first of several; None where there is none."""
    return max(polygons(mask), key=len, default=None)


def polygons(mask: Bool[np.ndarray, "h w"]) -> list[Int[np.ndarray, "_ 2"]]:
    """Returns the outlines of a mask and of its holes as simplified polygons.

    Where four pixels meet as on a chessboard the outlines part, so that each is a simple closed curve. It is reduced
    to its corners, those to ones at least 1.5 pixels apart, and those to ones more than 1.5 pixels off the chord
    (Douglas and Peucker, 1973).

    Returns:
        For each outline (row, column) of its vertices on the grid of pixel corners, the first repeated at the end,
        with the object to the right of the path. Outlines that keep three points or fewer are left out, as those of
        objects of two by two pixels. Order and first vertices are those of the reference, because ties hang on them.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return []
    outlines = _outlines(mask[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1])
    paths = [path + [rows[0], columns[0]] for path, _ in outlines]
    holes = [forward != _clockwise(path) for path, (_, forward) in zip(paths, outlines, strict=True)]
    paths = _simplify([_thin(path) for path in _simplify(paths, _STRAIGHT)], _TOLERANCE)
    return [path if _clockwise(path) != hole else path[::-1]
            for path, hole in zip(paths, holes, strict=True) if len(path) > 3]


def _outlines(mask: Bool[np.ndarray, "h w"]) -> list[tuple[Int[np.ndarray, "_ 2"], bool]]:
    """Returns the closed paths along the edges of the pixels, and for each whether the object lies to its right.

    Corners are numbered row by row. Edges are directed with the object to their right; `after` and `before` lead along
    them from corner to corner, except at junctions, the corners where the pixels are as on a chessboard.
    """
    padded = np.pad(mask, 1)
    above, below, left, right = padded[:-1, 1:-1], padded[1:, 1:-1], padded[1:-1, :-1], padded[1:-1, 1:]
    width = right.shape[1]

    def corners(where: Bool[np.ndarray, "h w"]) -> Int[np.ndarray, "n"]:
        row, column = np.nonzero(where)
        return row * width + column

    east, west, north, south = map(corners, (below > above, above > below, right > left, left > right))
    sources = np.concatenate([east, west + 1, north + width, south]).tolist()
    targets = np.concatenate([east + 1, west, north, south + width]).tolist()
    after = dict(zip(sources, targets, strict=True))
    diagonal, opposite = padded[:-1, :-1] & padded[1:, 1:], padded[:-1, 1:] & padded[1:, :-1]
    alone, beside = padded[:-1, :-1] | padded[1:, 1:], padded[:-1, 1:] | padded[1:, :-1]
    junctions = corners((diagonal & ~beside) | (opposite & ~alone)).tolist()
    swept: set[int] = set()
    joined = []
    if junctions:
        edges = set(zip(sources, targets, strict=True))
        pieces = list(_pieces(junctions, width, edges, after, dict(zip(targets, sources, strict=True))))
        swept.update(*pieces)
        joined = [(path, (path[0], path[1]) in edges) for path in _join(pieces)]
    simple = []
    southward = set(south.tolist())
    for top in np.sort(np.concatenate([north, south])).tolist():
        if top not in swept:
            path = _walk(top, after[top], after, {top})
            swept.update(path)
            simple.append((path, True) if top in southward else (path[::-1], False))
    return [(np.stack(np.divmod(path, width), 1), forward) for path, forward in simple[::-1] + joined]


def _walk(start: int, corner: int, step: dict[int, int], stops: set[int]) -> list[int]:
    """Returns the corners from `start` over `corner` to the first of `stops`."""
    path = [start, corner]
    while corner not in stops:
        corner = step[corner]
        path.append(corner)
    return path


def _pieces(junctions: list[int], width: int, edges: set[tuple[int, int]], after: dict[int, int],
            before: dict[int, int]) -> Iterator[list[int]]:
    """Yields the paths from junction to junction, once each, from the last junction on, northern first."""
    stops, seen = set(junctions), set()
    for start in reversed(junctions):
        for corner in (start - width, start - 1, start + width, start + 1):
            if (start, corner) not in seen:
                path = _walk(start, corner, after if (start, corner) in edges else before, stops)
                seen.update([(start, corner), (path[-1], path[-2])])
                yield path


def _join(pieces: list[list[int]]) -> list[list[int]]:
    """Returns closed paths made of pieces, which turn at every junction and come to none of them twice."""
    left: dict[int, set[int]] = {}
    for index, piece in enumerate(pieces):
        left.setdefault(piece[0], set()).add(index)
        left.setdefault(piece[-1], set()).add(index)

    def take(here: int, behind: int | None) -> list[int]:
        """Returns the first piece that is left at a junction and does not lead straight on, as seen from there."""
        for index in sorted(left[here]):
            piece = pieces[index]
            ahead = piece[1] if piece[0] == here else piece[-2]
            if behind is None or ahead + behind != 2 * here:
                break
        left[piece[0]].discard(index)
        left[piece[-1]].discard(index)
        return piece if piece[0] == here else piece[::-1]

    loops = []
    for start in sorted(left, reverse=True):
        while left[start]:
            trail = [take(start, None)]
            while trail:
                here = trail[-1][-1]
                met = [place for place, piece in enumerate(trail) if piece[0] == here]
                if met:
                    loops.append([corner for piece in trail[met[0]:] for corner in piece[:-1]] + [here])
                    del trail[met[0]:]
                if trail:
                    trail.append(take(here, trail[-1][-2]))
    return loops


def _clockwise(path: Int[np.ndarray, "n 2"]) -> bool:
    """Returns whether a closed path keeps what it encloses to its right."""
    return bool(np.dot(np.diff(path[:, 0]), path[1:, 1] + path[:-1, 1]) > 0)


def _thin(path: Int[np.ndarray, "n 2"]) -> Int[np.ndarray, "m 2"]:
    """Drops the points within 1.5 pixels of the last point kept; the ends stay."""
    points = path.tolist()
    kept = points[:1]
    for row, column in points[1:-1]:
        if (row - kept[-1][0]) ** 2 + (column - kept[-1][1]) ** 2 >= _TOLERANCE**2:
            kept.append([row, column])
    return np.array([*kept, points[-1]])


def _simplify(paths: list[Int[np.ndarray, "_ 2"]], tolerance: float) -> list[Int[np.ndarray, "_ 2"]]:
    """Drops points by the rule of Douglas and Peucker (1973), in all paths at once, one generation of chords a round.

    Of the points furthest from a chord the last stays. Rounding decides which those are: the position of a point along
    its chord has single precision, as in the reference.
    """
    points = np.concatenate(paths)
    ends = np.cumsum([len(path) for path in paths])
    first, last = np.concatenate([[0], ends[:-1]]), ends - 1
    kept = np.zeros(len(points), bool)
    kept[first] = kept[last] = True
    while (long := last - first > 1).any():
        first, last = first[long], last[long]
        counts = last - first - 1
        starts = np.cumsum(counts) - counts
        chord = np.repeat(np.arange(len(counts)), counts)
        inner = np.arange(len(chord)) + (first + 1 - starts)[chord]
        squared = _squared_distance(points[inner], points[first][chord], points[last][chord])
        furthest = np.maximum.reduceat(squared, starts)
        ties = squared == furthest[chord]
        peak = np.zeros_like(first)
        peak[chord[ties]] = inner[ties]  # of several the last is written last
        far = furthest > tolerance**2
        kept[peak[far]] = True
        first, last = np.concatenate([first[far], peak[far]]), np.concatenate([peak[far], last[far]])
    return [part[stay] for part, stay in zip(np.split(points, ends[:-1]), np.split(kept, ends[:-1]), strict=True)]


def _squared_distance(point: Int[np.ndarray, "n 2"], start: Int[np.ndarray, "n 2"],
                      end: Int[np.ndarray, "n 2"]) -> Float[np.ndarray, "n"]:
    """Returns the squared distances of points to the segments from `start` to `end`."""
    chord = end - start
    along, length = ((point - start) * chord).sum(1), (chord * chord).sum(1)
    share = along.astype(np.float32) / np.maximum(length, 1).astype(np.float32)
    share = np.where(along <= 0, 0.0, np.where(along >= length, 1.0, share.astype(np.float64)))
    return ((point - (start + share[:, None] * chord)) ** 2).sum(1)
