"""J and F of models and baselines on the DAVIS training sequences that training holds out, at the annotations' size.

    python experiments/held_out.py DAVIS --resolution 256p --models runs/davis default

The baselines are an all-foreground mask and the untrained net: the default model's configuration with random decoder
and ImageNet encoders. First and last frames do not count, as in DAVIS.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from tqdm import tqdm

from jaxvos.data import DataConfig, DavisSequence, find_sequence
from jaxvos.errors import exit_on_input_error
from jaxvos.evaluation import score_sequence
from jaxvos.inference import stream
from jaxvos.models import Model, load_model
from jaxvos.nets import pretrained
from jaxvos.system import Clip


def score(sequences: list[DavisSequence], segment: Callable[[DavisSequence], Iterable[np.ndarray]]) -> dict[str, float]:
    """Returns mean J and F over the sequences, and J of each."""
    scores = {}
    for s in tqdm(sequences, leave=False):
        masks = [mask for mask in s.masks() if mask is not None]
        scores[s.name] = score_sequence(masks, list(segment(s)), protocol="davis16", name=s.name)
    means = {"J": np.mean([s.j.mean for s in scores.values()]), "F": np.mean([s.f.mean for s in scores.values()])}
    return {name: float(x) for name, x in (means | {name: s.j.mean for name, s in scores.items()}).items()}


def untrained(seed: int) -> Model:
    """The default model's net with ImageNet encoders and a random decoder."""
    model = load_model()
    clip = Clip(jnp.zeros((1, 1, 64, 64, 3)), flow=jnp.zeros((1, 1, 64, 64, 2)))
    variables = jax.jit(model.system.init)(jax.random.key(seed), clip)
    encoder = jax.tree.map(jnp.asarray, pretrained("efficientnet_lite0", "imagenet"))
    streams = {part: {**variables[part], "appearance": encoder[part], "motion": encoder[part]} for part in encoder}
    return model._replace(name="untrained", variables=streams)


def main(
    davis: tyro.conf.Positional[Path],
    *,
    resolution: str | None = None,
    held_out: tuple[str, ...] = DataConfig().held_out,
    models: tuple[str, ...] = ("default",),
    seed: int = 0,
) -> None:
    """Prints the table.

    Args:
      davis: DAVIS folder.
      resolution: folder within its JPEGImages.
      held_out: sequences to score.
      models: as `jaxvos segment --model` takes them; `default` is the embedded one.
      seed: of the untrained net.
    """
    sequences = [find_sequence(davis, name, resolution=resolution) for name in held_out]
    loaded = [load_model(None if name == "default" else name) for name in models]
    print(f"{'model':32}      J      F  {'  '.join(held_out)}")
    rows = {"all foreground": lambda s: (np.ones(s.frames().size, np.uint8) for _ in range(len(s)))}
    rows |= {model.name: functools.partial(_masks, model) for model in (untrained(seed), *loaded)}
    for name, segment in rows.items():
        j, f, *each = score(sequences, segment).values()
        columns = "  ".join(f"{x:{len(n)}.3f}" for x, n in zip(each, held_out, strict=True))
        print(f"{name:32}  {j:.3f}  {f:.3f}  {columns}", flush=True)


def _masks(model: Model, sequence: DavisSequence) -> Iterator[np.ndarray]:
    return (frame.mask for frame in stream(sequence.frames(), model=model))


if __name__ == "__main__":
    with exit_on_input_error():
        tyro.cli(main, description=__doc__)
