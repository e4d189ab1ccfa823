"""The figures of the synthetic clips: contours, jointed bodies, and the smooth motions that carry them.

A contour is star-shaped: a table of radii over the angle. A figure is a list of such parts from back to front, each
hung from a joint that it swings about.
"""

import dataclasses

import numpy as np
from jaxtyping import Float

__all__ = ["Figure", "Motion", "Part", "draw_figure", "draw_motion", "figure_area", "shift", "turn", "zoom"]

_ANGLES = 256


@dataclasses.dataclass(frozen=True)
class Motion:
    """Sinusoidal x, y (layer units), angle (radians) and log scale; zero displacement at time 0."""

    speed: Float[np.ndarray, "4"]  # peak, per frame
    rate: Float[np.ndarray, "4"]  # radians per frame
    phase: Float[np.ndarray, "4"]

    def at(self, time: float) -> Float[np.ndarray, "3 3"]:
        """Returns the similarity transform at a time in frames."""
        swing = np.sin(self.rate * time + self.phase) - np.sin(self.phase)
        x, y, angle, log_scale = self.speed / self.rate * swing
        return shift(x, y) @ turn(angle) @ zoom(np.exp(log_scale))


@dataclasses.dataclass(frozen=True)
class Part:
    """One part of a figure, in figure units (the body is about 1 long); y points down, a limb hangs from its joint."""

    joint: tuple[float, float]
    angle: float
    radii: Float[np.ndarray, "a"]
    hang: float = 0.0  # distance from the joint to the centre of the contour
    swing: float = 0.0  # radians
    rate: float = 0.0  # radians per frame
    phase: float = 0.0
    breath: Float[np.ndarray, "a"] | None = None  # relative change of the radii at the top of a swing
    material: int = 0

    def pose(self, time: float) -> Float[np.ndarray, "3 3"]:
        """Returns part to figure at a time in frames."""
        angle = self.angle + self.swing * np.sin(self.rate * time + self.phase)
        return shift(*self.joint) @ turn(angle) @ shift(0.0, self.hang)

    def contour(self, time: float) -> Float[np.ndarray, "a"]:
        """Returns the radii at a time in frames."""
        if self.breath is None:
            return self.radii
        return self.radii * (1.0 + self.breath * np.float32(np.sin(self.rate * time + self.phase)))


Figure = list[Part]


def shift(x: float, y: float) -> Float[np.ndarray, "3 3"]:
    """Returns a translation."""
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def turn(angle: float) -> Float[np.ndarray, "3 3"]:
    """Returns a rotation by `angle` radians, clockwise on screen."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])


def zoom(x: float, y: float | None = None) -> Float[np.ndarray, "3 3"]:
    """Returns a scaling, the same in both directions unless `y` is given."""
    return np.diag([x, x if y is None else y, 1.0])


def draw_motion(rng: np.random.Generator, *, speed: float, spin: float, growth: float) -> Motion:
    """Draws a smooth motion: peak `speed` (units a frame) in a random direction, `spin` radians, `growth` log scale."""
    heading = rng.uniform(0.0, 2.0 * np.pi)
    flatness = rng.uniform(0.2, 1.0)
    peak = np.array([speed * np.cos(heading), speed * flatness * np.sin(heading), rng.normal() * spin,
                     rng.normal() * growth])
    rate = 2.0 * np.pi / np.exp(rng.uniform(np.log(16.0), np.log(80.0), 4))
    return Motion(speed=peak, rate=rate, phase=rng.normal(0.0, 0.7, 4) + np.pi * rng.integers(0, 2, 4))


def draw_figure(rng: np.random.Generator) -> Figure:
    """Draws a figure: a blob, a polygon, a box, a person, an animal, a vehicle, or a body with limbs anywhere."""
    pace = 2.0 * np.pi / rng.uniform(10.0, 40.0)
    builders = (_blob, _polygon, _box, _person, _animal, _vehicle, _creature)
    return builders[rng.choice(len(builders), p=[0.2, 0.08, 0.08, 0.24, 0.18, 0.1, 0.12])](rng, pace)


def figure_area(figure: Figure) -> float:
    """Returns the area in square figure units, a little reduced for what overlaps."""
    areas = [np.pi * float(np.mean(part.radii**2)) for part in figure]
    return max(areas) + 0.8 * (sum(areas) - max(areas))


def _harmonics(rng: np.random.Generator, *, strength: float) -> np.ndarray:
    """A smooth periodic function of the angle with about unit `strength` in its low harmonics."""
    order = np.arange(2, 7)[:, None]
    angle = np.arange(_ANGLES) * (2.0 * np.pi / _ANGLES)
    waves = np.cos(order * angle + rng.uniform(0.0, 2.0 * np.pi, order.shape))
    return (strength * (rng.normal(size=order.shape) / order * waves).sum(axis=0)).astype(np.float32)


def _ellipse(a: float, b: float, *, power: float = 2.0) -> np.ndarray:
    """Radii of |x/a|^power + |y/b|^power = 1: an ellipse for 2, a rounded box for more."""
    angle = np.arange(_ANGLES) * (2.0 * np.pi / _ANGLES)
    radii = (np.abs(np.cos(angle) / a) ** power + np.abs(np.sin(angle) / b) ** power) ** (-1.0 / power)
    return radii.astype(np.float32)


def _blob(rng: np.random.Generator, pace: float) -> Figure:
    base = _ellipse(1.0, rng.uniform(0.35, 1.0)) * np.exp(_harmonics(rng, strength=rng.uniform(0.1, 0.6)))
    breath = np.clip(_harmonics(rng, strength=0.15), -0.3, 0.3)
    return [Part((0.0, 0.0), 0.0, base, rate=pace, breath=breath)]


def _polygon(rng: np.random.Generator, pace: float) -> Figure:
    del pace
    count = rng.integers(3, 8)
    corners = (np.arange(count) + rng.uniform(0.0, 0.4, count)) * (2.0 * np.pi / count)
    radius = rng.uniform(0.5, 1.0, count)
    x, y = radius * np.cos(corners), radius * np.sin(corners)
    angle = np.arange(_ANGLES) * (2.0 * np.pi / _ANGLES)
    side = (np.searchsorted(corners, angle, side="right") - 1) % count
    edge_x, edge_y = (np.roll(x, -1) - x)[side], (np.roll(y, -1) - y)[side]
    reach = (x[side] * edge_y - y[side] * edge_x) / (np.cos(angle) * edge_y - np.sin(angle) * edge_x)
    return [Part((0.0, 0.0), 0.0, np.clip(reach, 0.1, 1.0).astype(np.float32))]


def _box(rng: np.random.Generator, pace: float) -> Figure:
    del pace
    return [Part((0.0, 0.0), 0.0, _ellipse(1.0, rng.uniform(0.2, 1.0), power=rng.uniform(3.0, 12.0)))]


def _limb(rng: np.random.Generator, pace: float, joint: tuple[float, float], angle: float, length: float,
          width: float, swing: float, material: int) -> Part:
    return Part(joint, angle, _ellipse(width, length / 2.0, power=rng.uniform(2.0, 4.0)), hang=0.45 * length,
                swing=swing * rng.uniform(0.2, 1.0), rate=pace, phase=rng.uniform(0.0, 2.0 * np.pi), material=material)


def _person(rng: np.random.Generator, pace: float) -> Figure:
    wide, tall = rng.uniform(0.24, 0.42), rng.uniform(0.5, 0.65)
    legs = [_limb(rng, pace, (side * 0.5 * wide, 0.8 * tall), rng.normal(0.0, 0.3), rng.uniform(0.9, 1.2),
                  rng.uniform(0.1, 0.17), 0.6, 1) for side in (-1, 1)]
    arms = [_limb(rng, pace, (side * 0.85 * wide, -0.7 * tall), rng.normal(-0.4 * side, 0.7), rng.uniform(0.7, 1.0),
                  rng.uniform(0.07, 0.12), 0.7, int(rng.choice([0, 2]))) for side in (-1, 1)]
    torso = Part((0.0, 0.0), rng.normal(0.0, 0.1), _ellipse(wide, tall, power=2.7))
    head = _limb(rng, pace, (0.0, -0.9 * tall), np.pi + rng.normal(0.0, 0.2), rng.uniform(0.42, 0.6),
                 rng.uniform(0.17, 0.24), 0.1, 2)
    return [arms[0], *legs, torso, head, arms[1]]


def _animal(rng: np.random.Generator, pace: float) -> Figure:
    tall = rng.uniform(0.25, 0.5)
    legs = [_limb(rng, pace, (x, 0.6 * tall), rng.normal(0.0, 0.2), rng.uniform(0.5, 1.0), rng.uniform(0.06, 0.13),
                  0.5, int(rng.choice([0, 1]))) for x in (-0.7, -0.5, 0.55, 0.7)]
    tail = _limb(rng, pace, (-0.85, -0.2 * tall), rng.uniform(0.6, 2.4), rng.uniform(0.3, 0.9), 0.05, 0.4, 0)
    lean = rng.uniform(-2.6, -1.4)
    length = rng.uniform(0.3, 0.8)
    neck = _limb(rng, 0.0, (0.75, -0.4 * tall), lean, length, rng.uniform(0.14, 0.22), 0.1, 0)
    tip = neck.pose(0.0) @ shift(0.0, 0.45 * length)
    head = Part((float(tip[0, 2]), float(tip[1, 2])), rng.normal(0.3, 0.3),
                _ellipse(rng.uniform(0.2, 0.35), rng.uniform(0.14, 0.22)), material=int(rng.choice([0, 2])))
    body = Part((0.0, 0.0), 0.0, _ellipse(0.95, tall) * np.exp(_harmonics(rng, strength=0.12)))
    return [legs[0], legs[2], tail, body, legs[1], legs[3], neck, head]


def _vehicle(rng: np.random.Generator, pace: float) -> Figure:
    tall = rng.uniform(0.2, 0.35)
    body = Part((0.0, 0.0), 0.0, _ellipse(1.0, tall, power=rng.uniform(3.0, 8.0)))
    cabin = Part((rng.uniform(-0.3, 0.3), -1.2 * tall), 0.0,
                 _ellipse(rng.uniform(0.4, 0.8), rng.uniform(0.6, 1.2) * tall, power=rng.uniform(2.5, 6.0)), material=1)
    size = rng.uniform(0.15, 0.28)
    wheels = [Part((x, tall), 0.0, _ellipse(size, size), swing=2.5, rate=pace, material=2) for x in (-0.6, 0.6)]
    return [cabin, body, *wheels]


def _creature(rng: np.random.Generator, pace: float) -> Figure:
    body = _blob(rng, pace)[0]
    limbs = []
    for _ in range(rng.integers(1, 6)):
        angle = rng.uniform(0.0, 2.0 * np.pi)
        edge = 0.8 * float(body.radii[int(angle / (2.0 * np.pi) * _ANGLES) % _ANGLES])
        limbs.append(_limb(rng, pace, (edge * np.cos(angle), edge * np.sin(angle)), angle - np.pi / 2.0,
                           rng.uniform(0.4, 1.2), rng.uniform(0.07, 0.3), 0.6, int(rng.integers(0, 3))))
    front = rng.integers(0, len(limbs) + 1)
    return [*limbs[:front], body, *limbs[front:]]
