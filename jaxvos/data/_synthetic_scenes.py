"""What is filmed in a synthetic clip: a scene with scenery and figures, a camera, and who moves how."""

import dataclasses
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxvos.data._synthetic_figures import (
    Figure,
    Motion,
    Part,
    draw_figure,
    draw_motion,
    figure_area,
    shift,
    turn,
    zoom,
)
from jaxvos.data._synthetic_sprites import Canvas, Layer, Pose, blank_canvas, paint_layer, paint_plane
from jaxvos.data._synthetic_textures import fractal_fields, make_texture, palette
from jaxvos.errors import InputError

__all__ = ["Scene", "SyntheticConfig", "draw_scene", "render"]

_SHADOW = Part((0.0, 0.0), 0.0, np.full(64, 0.8, np.float32))
_MARGIN = 1.5  # side of the painted scene over the longer side of the frame


@dataclasses.dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """What the clips are made of. Probabilities are per clip; speeds are relative to the shorter side of a frame."""

    height: int = 128  # pixels
    width: int = 128  # pixels
    num_frames: int = 2  # frames per clip
    num_objects: int = 3  # at most; a clip has `num_objects + 1` slots
    min_objects: int = 1  # at least so many
    lookalikes: float = 0.0  # probability that the objects, two or more, are copies of one another, each in its pose
    min_area: float = 0.01  # of the frame, of the first object
    max_area: float = 0.45  # of the frame, of the first object
    camera_motion: float = 1.0  # scale of the camera's speed; 0 nails it down
    object_motion: float = 1.0  # scale of the objects' own speed
    tracking: float = 0.4  # probability that the camera follows the first object
    still: float = 0.04  # probability that an object does not move through the scene
    parallax: float = 0.35  # probability of scenery nearer than the rest, which moves differently
    distractors: int = 16  # at most; figures painted on the scene, which are background
    camouflage: float = 0.3  # probability that an object wears the colours of the scene
    shadows: float = 0.35  # probability that an object casts a shadow, which is background
    lights: float = 0.2  # probability of a glare that wanders over the frames
    photometric: float = 1.0  # strength of brightness, contrast, gamma, tint and vignetting
    noise: float = 0.03  # largest standard deviation of the sensor noise
    blur: float = 0.25  # probability that the lens is out of focus
    motion_blur: float = 0.15  # probability of an open shutter
    flow_source: Literal["exact", "dis"] = "exact"  # "dis": estimated from the images by OpenCV, as at test time
    flow_noise: float = 0.7  # probability that the flow is made to err as estimators do; 0 leaves the source as it is

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 16:
            raise InputError(f"synthetic clips of {self.height}x{self.width}: use at least 16 pixels a side")
        if self.num_frames < 1 or self.num_objects < 1:
            raise InputError("synthetic clips need at least one frame and one object")
        if not 1 <= self.min_objects <= self.num_objects:
            raise InputError(f"{self.min_objects}..{self.num_objects} objects: want 1 <= min_objects <= num_objects")
        if not 0.0 < self.min_area <= self.max_area <= 1.0:
            raise InputError(f"areas {self.min_area}..{self.max_area}: want 0 < min_area <= max_area <= 1")


class Scene(NamedTuple):
    """A scene ready to be filmed at any time."""

    height: int
    width: int
    ground: Float[np.ndarray, "s s 3"]
    ground_pose: Pose
    layers: list[Layer]  # from back to front
    shutter: float  # half the time it is open, in frames


def draw_scene(rng: np.random.Generator, config: SyntheticConfig) -> Scene:
    """Draws a scene: painted ground, a camera, perhaps near scenery, and the objects with their shadows."""
    height, width, short = config.height, config.width, float(min(config.height, config.width))
    size = int(_MARGIN * max(height, width))
    fields = fractal_fields(rng, count=5, size=size)
    colours = palette(rng, count=int(rng.integers(3, 6)))
    ground = _draw_ground(rng, fields, colours, config)
    tracked = rng.random() < config.tracking
    camera = _draw_camera(rng, config, tracked=tracked)
    lens = shift((width - 1) / 2, (height - 1) / 2)
    tilt = np.eye(3)
    tilt[2, :2] = rng.normal(0.0, 0.12, 2) / max(height, width) * (rng.random() < 0.6)
    centre = shift(-size / 2, -size / 2)

    def ground_pose(time: float) -> np.ndarray:
        return lens @ tilt @ zoom(short) @ camera.at(time) @ zoom(1.0 / short) @ centre

    layers: list[Layer] = []
    if rng.random() < config.parallax:
        layers += _draw_scenery(rng, fields, colours, camera, lens, config)
    pattern = int(rng.integers(2**63)) if config.lookalikes and rng.random() < config.lookalikes else None
    fewest = min(max(config.min_objects, 1 if pattern is None else 2), config.num_objects)
    rest = config.num_objects - fewest + 1
    count = fewest + int(rng.choice(rest, p=_falling(rest)))
    objects = [_draw_object(rng, fields, colours, camera, lens, config, slot=slot, tracked=tracked and slot == 1,
                            pattern=pattern) for slot in range(1, count + 1)]
    layers += [layer for index in rng.permutation(count) for layer in objects[index]]
    shutter = rng.uniform(0.15, 0.5) if rng.random() < config.motion_blur else 0.0
    return Scene(height, width, ground, ground_pose, layers, shutter)


def render(scene: Scene, time: float) -> Canvas:
    """Films the scene: the image over the open shutter, owner and exact flow at its middle."""
    canvas = _expose_at(scene, time)
    if scene.shutter > 0.0:
        ends = [_expose_at(scene, time + side * scene.shutter).image for side in (-1.0, -0.5, 0.5, 1.0)]
        canvas.image[:] = (canvas.image + sum(ends)) / 5.0
    return canvas


def _expose_at(scene: Scene, time: float) -> Canvas:
    """One instant."""
    canvas = blank_canvas(scene.height, scene.width)
    paint_plane(canvas, scene.ground, scene.ground_pose, time)
    for layer in scene.layers:
        paint_layer(canvas, layer, time)
    return canvas


def _falling(count: int) -> np.ndarray:
    """Probabilities that fall as 1 / n."""
    weights = 1.0 / np.arange(1, count + 1)
    return weights / weights.sum()


def _draw_camera(rng: np.random.Generator, config: SyntheticConfig, *, tracked: bool) -> Motion:
    """A camera on a tripod, in the hand, or following an object."""
    lively = float(rng.random() < 0.75 or tracked)
    speed = np.clip(rng.exponential(0.024), 0.01 if tracked else 0.0, 0.08)
    return draw_motion(rng, speed=config.camera_motion * lively * speed, spin=config.camera_motion * lively * 0.004,
                       growth=config.camera_motion * lively * 0.005)


def _draw_ground(rng: np.random.Generator, fields: np.ndarray, colours: np.ndarray,
                 config: SyntheticConfig) -> np.ndarray:
    """The painted scene: one texture, or two that meet at a horizon, and figures that never leave it."""
    size = fields.shape[-1]
    ground = make_texture(rng, fields, colours, size=size)
    if rng.random() < 0.45:
        sky = make_texture(rng, fields, palette(rng, count=3), size=size)
        line = size * rng.uniform(0.35, 0.65) + rng.uniform(0.0, 0.04) * size * fields[-1, size // 2]
        ground = np.where(np.arange(size)[:, None, None] < line[None, :, None], sky, ground)
    canvas = blank_canvas(size, size)
    canvas.image[:] = ground
    for _ in range(rng.integers(0, config.distractors + 1)):
        own = colours if rng.random() < 0.5 else palette(rng, spread=0.35)
        spread = min(config.height, config.width) * np.exp(rng.uniform(np.log(0.05), np.log(0.4)))
        place = shift(*(size * rng.uniform(0.1, 0.9, 2))) @ turn(rng.normal(0.0, 0.4)) @ zoom(0.5 * spread)
        for layer in _dress(rng, draw_figure(rng), fields, own, slot=0, softness=rng.uniform(0.7, 2.0),
                            pose=lambda time, place=place: place):
            paint_layer(canvas, layer, 0.0)
    return canvas.image


def _draw_scenery(rng: np.random.Generator, fields: np.ndarray, colours: np.ndarray, camera: Motion,
                  lens: np.ndarray, config: SyntheticConfig) -> list[Layer]:
    """Still things at another depth than the ground, which therefore move faster or slower than it."""
    short = float(min(config.height, config.width))
    layers: list[Layer] = []
    for _ in range(rng.integers(1, 4)):
        depth = rng.uniform(0.6, 1.6)
        near = dataclasses.replace(camera, speed=camera.speed * np.array([depth, depth, 1.0, depth]))
        place = shift(*rng.uniform(-0.6, 0.6, 2)) @ turn(rng.normal(0.0, 0.3)) @ zoom(rng.uniform(0.1, 0.4))
        own = colours if rng.random() < 0.6 else palette(rng, spread=0.35)
        layers += _dress(rng, draw_figure(rng), fields, own, slot=0, softness=rng.uniform(0.7, 2.0),
                         pose=lambda time, near=near, place=place: lens @ zoom(short) @ near.at(time) @ place,
                         frozen=True)
    return layers


def _draw_object(rng: np.random.Generator, fields: np.ndarray, colours: np.ndarray, camera: Motion, lens: np.ndarray,
                 config: SyntheticConfig, *, slot: int, tracked: bool, pattern: int | None) -> list[Layer]:
    """An object and, below it, its shadow. Objects of one `pattern` look alike: it is the seed of all but the pose."""
    height, width, short = config.height, config.width, float(min(config.height, config.width))
    look = rng if pattern is None else np.random.default_rng(pattern)
    figure = draw_figure(look)
    area = np.exp(look.uniform(np.log(config.min_area), np.log(config.max_area)))
    if pattern is None:
        area *= 1.0 if slot == 1 else rng.uniform(0.2, 0.8)
    else:
        area *= rng.uniform(0.4, 0.6)
        late = rng.uniform(0.0, 40.0)
        figure = [dataclasses.replace(part, phase=part.phase + late * part.rate) for part in figure]
    size = np.sqrt(area * height * width / figure_area(figure)) / short
    speed = np.clip(rng.exponential(0.03), 0.01, 0.12) * (0.3 if tracked else 1.0)
    speed *= config.object_motion * float(rng.random() >= config.still)
    motion = draw_motion(rng, speed=speed, spin=0.6 * speed, growth=0.3 * speed)
    centre = np.clip(rng.normal(0.0, 0.2, 2), -0.45, 0.45) * [width / short, height / short]
    lean = rng.normal(0.0, 0.25) if rng.random() < 0.8 else rng.uniform(0.0, 2.0 * np.pi)
    shape = turn(lean) @ zoom(size * rng.choice([-1.0, 1.0]) * rng.uniform(0.8, 1.2), size)

    def pose(time: float) -> np.ndarray:
        world = np.eye(3) if tracked else camera.at(time)
        return lens @ zoom(short) @ world @ shift(*centre) @ motion.at(time) @ shape

    own = colours if look.random() < config.camouflage else palette(look, spread=0.45)
    layers = _dress(look, figure, fields, own, slot=slot, pose=pose, softness=look.uniform(0.7, 1.6),
                    frozen=bool(speed == 0.0))
    if rng.random() < config.shadows:
        low, squash, aside = rng.uniform(0.6, 1.3), rng.uniform(0.1, 0.5), rng.uniform(-0.5, 0.5)
        layers = [Layer(-1, _SHADOW, lambda time: pose(time) @ shift(aside, low) @ zoom(1.0, squash),
                        np.zeros((4, 4, 3), np.float32), softness=0.15 * size * short + 1.0,
                        opacity=rng.uniform(0.2, 0.6)), *layers]
    return layers


def _dress(rng: np.random.Generator, figure: Figure, fields: np.ndarray, colours: np.ndarray, *, slot: int, pose: Pose,
           softness: float, frozen: bool = False) -> list[Layer]:
    """Gives every part of a figure its texture; one light falls on all of them. `frozen` stops the joints."""
    size = max(16, fields.shape[-1] // 3)
    several = rng.random() < 0.7
    materials = [make_texture(rng, fields, colours[rng.permutation(len(colours))[: rng.integers(2, 5)]], size=size)
                 for _ in range(3 if several else 1)]
    strength, direction = rng.uniform(0.0, 0.5), rng.uniform(0.0, 2.0 * np.pi)
    light = (strength * np.cos(direction), strength * np.sin(direction))
    if frozen:
        figure = [dataclasses.replace(part, swing=0.0, breath=None) for part in figure]
    return [Layer(slot, part, pose, materials[part.material % len(materials)], softness=softness, light=light)
            for part in figure]
