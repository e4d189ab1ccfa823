"""Systems with their weights: the embedded default, a weights file, or the folder of a training run."""

import contextlib
import dataclasses
import difflib
import functools
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import dacite
import jax
import jax.numpy as jnp

from jaxvos.errors import InputError
from jaxvos.nets import BackboneName, pretrained
from jaxvos.system import Clip, System
from jaxvos.systems import (
    DMMNetConfig,
    MaskRCNNConfig,
    MaskVOSConfig,
    MaskVOSNetConfig,
    PropagationConfig,
    PWCNetConfig,
    SegFlowConfig,
    STCNConfig,
    TransportNetConfig,
    XMemConfig,
    dmm_net,
    mask_rcnn,
    mask_vos,
    pwc_net,
    segflow,
    stcn,
    transportnet,
    xmem,
)
from jaxvos.training import load_variables, match_variables, save_variables
from jaxvos.typing import Variables

__all__ = ["DEFAULT", "FIRST_MASK", "FLOW", "IMAGENET", "MATCHER", "PROPOSALS", "Model", "abstract_variables",
           "build_system", "default_model", "embedded_models", "find_embedded", "load_model", "pretrained_start",
           "save_model", "save_run"]

DEFAULT = "transportnet-lite-synthetic"
"""Finds what moves."""
FIRST_MASK = "stcn-lite"
"""Follows objects that are marked on any frame."""
MATCHER = "dmm-net-lite"
"""Follows objects that are marked on the first frame, by choosing among proposals; it can learn them online."""
PROPOSALS = "mask-rcnn-lite"
"""Proposes masks of objects."""
FLOW = "pwc-net-lite"
"""Estimates the motion from a frame to the next."""

IMAGENET = "imagenet"
"""Follows objects that are marked, untrained: by the features of an encoder that learned to tell pictures apart."""

_FOLDER = Path(__file__).parent / "weights"
# built once for each configuration, so that loading a model again compiles nothing again
_SYSTEMS = {
    "transportnet": (TransportNetConfig, functools.lru_cache(maxsize=8)(transportnet)),
    "dmm_net": (DMMNetConfig, functools.lru_cache(maxsize=8)(dmm_net)),
    "mask_rcnn": (MaskRCNNConfig, functools.lru_cache(maxsize=8)(mask_rcnn)),
    "mask_vos": (MaskVOSConfig, functools.lru_cache(maxsize=8)(mask_vos)),
    "pwc_net": (PWCNetConfig, functools.lru_cache(maxsize=8)(pwc_net)),
    "segflow": (SegFlowConfig, functools.lru_cache(maxsize=8)(segflow)),
    "stcn": (STCNConfig, functools.lru_cache(maxsize=8)(stcn)),
    "xmem": (XMemConfig, functools.lru_cache(maxsize=8)(xmem)),
}
_EMBEDDED = {"transportnet": DEFAULT, "dmm_net": MATCHER, "mask_rcnn": PROPOSALS, "pwc_net": FLOW,
             "segflow": "segflow-lite", "stcn": FIRST_MASK}  # fmt: skip


class Model(NamedTuple):
    """A system that is ready to run, and where it comes from."""

    name: str
    system: System
    variables: Variables
    config: Any
    metadata: Mapping[str, Any]  # data, licence, command, commit, scores


def default_model(*, marked: bool, matching: bool) -> str:
    """The embedded model for what is given.

    Args:
      marked: objects are marked on a frame.
      matching: proposals are given, or online learning is asked for.
    """
    if not marked:
        return DEFAULT
    return MATCHER if matching else FIRST_MASK


def embedded_models() -> dict[str, Path]:
    """The weights file of each embedded model, by its name."""
    return {path.stem: path for path in sorted(_FOLDER.glob("*.safetensors"))}


def find_embedded(name: str) -> Path:
    """The weights file of an embedded model.

    Args:
      name: its own, or that of its system.

    Raises:
      InputError: there is none, with those that there are.
    """
    path = _embedded(_EMBEDDED.get(name, name))
    if path is None:
        close = difflib.get_close_matches(name, [*embedded_models(), *_EMBEDDED], n=1)
        hint = f"; did you mean '{close[0]}'?" if close else ";"
        raise InputError(f"there is no embedded model '{name}'{hint} there are: {_names()}")
    return path


def load_model(source: str | Path | None = None) -> Model:
    """Loads a model.

    Args:
      source: a `.safetensors` file, the folder of a training run (its latest checkpoint) or of one of its checkpoints,
        the name of an embedded model or of its system, None for the default one, or `imagenet` for plain label
        propagation.

    Raises:
      InputError: there is no such model, it cannot be read, or its weights and its configuration do not belong
        together.
    """
    if str(source) == IMAGENET:
        return _propagation()
    source = DEFAULT if source is None else _EMBEDDED.get(str(source), source)
    path = _embedded(str(source)) or Path(source).expanduser()
    if (path / "model.safetensors").is_file() and not (path / "checkpoints").is_dir():
        path = path / "model.safetensors"  # of a run of several phases
    if not path.exists():
        raise InputError(f"there is no model {source}: give a .safetensors file, a training run's folder, or the name "
                         f"of an embedded model ({_names()})")  # fmt: skip
    try:
        variables, metadata = load_variables(path)
        metadata = _story(path, metadata)
    except InputError:
        raise
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"model {path} cannot be read ({reason}): copy it again") from error
    config, system = build_system(metadata, path)
    with _building(path):
        expected = abstract_variables(system)
    try:
        match_variables(variables, expected)
    except InputError as error:
        raise InputError(f"{path} is a checkpoint of another configuration: {error}") from None
    return Model(_name(path), system, jax.tree.map(jnp.asarray, variables), config, metadata)


def build_system(metadata: Mapping[str, Any], path: Path) -> tuple[Any, System]:
    """The configuration that a weights file tells of, and its system, without the weights.

    Args:
      metadata: of the file: `system` is the name, and `config` the configuration.
      path: the file, for messages.

    Raises:
      InputError: there is no such system, or it has no such configuration.
    """
    name, settings = metadata.get("system"), metadata.get("config")
    if name is None or settings is None:
        raise InputError(f"{path} does not say which system it belongs to: save it with jaxvos.models.save_model")
    if name not in _SYSTEMS:
        raise InputError(f"{path} is of a system '{name}', and this version of jaxvos has {', '.join(_SYSTEMS)}")
    config_type, build = _SYSTEMS[name]
    try:
        config = dacite.from_dict(config_type, settings, dacite.Config(cast=[tuple], strict=True))
    except dacite.DaciteError as error:
        raise InputError(f"{path} has a configuration of another version of jaxvos: {error}") from None
    with _building(path):
        return config, build(config)


def save_model(
    path: str | Path, variables: Variables, *, system: str, config: Any, metadata: Mapping[str, Any], half: bool = False
) -> None:
    """Writes a model as one safetensors file that `load_model` reads.

    Args:
      path: the file.
      variables: parameters and batch statistics.
      system: name of the system.
      config: its configuration, a dataclass.
      metadata: what a user of the weights must know: data, licence, command, commit.
      half: store in float16, half the size.
    """
    story = {"system": system, "config": dataclasses.asdict(config), **metadata}
    save_variables(Path(path), variables, story, dtype="float16" if half else "float32")


def save_run(
    workdir: Path, variables: Variables, *, system: str, config: Any, data: str, licence: str,
    started_from: Mapping[str, Any],
) -> None:  # fmt: skip
    """Writes what a script has trained as `model.safetensors` beside its checkpoints, in float16.

    Args:
      workdir: of the run, which tells commit, versions and device.
      variables: parameters and batch statistics.
      system: name of the system.
      config: its configuration.
      data: what was seen, in words.
      licence: of the weights, in words.
      started_from: weights that it began with.
    """
    story = load_variables(workdir)[1]
    metadata = {
        "data": data, "licence": licence, "started_from": dict(started_from),
        "command": f"python experiments/{Path(sys.argv[0]).name} {' '.join(sys.argv[1:])}",
        **{name: story[name] for name in ("commit", "versions", "device")},
    }  # fmt: skip
    save_model(workdir / "model.safetensors", jax.device_get(variables), system=system, config=config,
               metadata=metadata, half=True)  # fmt: skip


def abstract_variables(system: System) -> Variables:
    """Names, shapes and types of a system's variables, without computing any."""
    images: Any = jax.ShapeDtypeStruct((1, 1, 64, 64, 3), jnp.float32)
    return jax.eval_shape(system.init, jax.random.key(0), Clip(images))


def pretrained_start(system: System, encoders: Mapping[str, BackboneName], source: str | Path) -> dict[str, Any]:
    """Weights of a system's encoders, as far as it has their layers: a part of its tree of variables to start from.

    Args:
      system: whose tree it is.
      encoders: kind of encoder by its place in the tree, such as `value/encoder`.
      source: as `pretrained` takes it.

    Raises:
      InputError: as `pretrained`.
    """
    start: dict[str, Any] = {}
    expected = abstract_variables(system)
    for path, name in encoders.items():
        for part, loaded in pretrained(name, source).items():
            wanted, place = expected[part], start.setdefault(part, {})
            for step in path.split("/"):
                wanted, place = wanted[step], place.setdefault(step, {})
            place.update({layer: loaded[layer] for layer in wanted})
    return start


def _propagation() -> Model:
    """Mask-VOS without anything to learn: stride-8 features of EfficientNet-Lite0, the first frame and 7 before."""
    net = MaskVOSNetConfig(encoder="efficientnet_lite0", value_encoder="efficientnet_lite0", key_head="none",
                           value_width=8, decoder_widths=(8, 8, 8))  # fmt: skip
    config = MaskVOSConfig(net=net, memory=PropagationConfig(context=7, rounds=0, short_side=256))
    system = _SYSTEMS["mask_vos"][1](config)
    blank = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), abstract_variables(system))
    start = jax.tree.map(jnp.asarray, pretrained_start(system, {"encoder": net.encoder}, "imagenet"))
    variables = {part: {**blank[part], **start[part]} for part in blank}
    story = {"system": "mask_vos", "data": "ImageNet", "licence": "Apache-2.0"}
    return Model(IMAGENET, system, variables, config, story)


def _embedded(name: str) -> Path | None:
    return embedded_models().get(name)


def _names() -> str:
    return ", ".join(embedded_models()) or "none is embedded"


def _name(path: Path) -> str:
    if path.name == "model.safetensors":
        return path.resolve().parent.name
    return path.resolve().name if path.is_dir() else path.stem


def _story(path: Path, metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """Weights files carry their configuration; a run's folder has it beside the checkpoints."""
    folder = path.resolve()
    places = (folder, folder.parent, folder.parent.parent) if path.is_dir() else ()
    config = next((place / "config.json" for place in places if (place / "config.json").is_file()), None)
    if config is None:
        return metadata
    run = json.loads(config.read_text())
    return {**run, "config": run["config"].get("system"), "system": run["config"].get("system_name")}


@contextlib.contextmanager
def _building(path: Path) -> Iterator[None]:
    """What another version wrote may give no system, or one without variables."""
    try:
        yield
    except (ArithmeticError, TypeError, ValueError) as error:
        raise InputError(f"{path} has a configuration that cannot be built: {error}") from None
