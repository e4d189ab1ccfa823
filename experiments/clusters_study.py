"""Which clustering finds objects? k-means and optimal transport on real clips whose masks are known.

    python experiments/clusters_study.py DAVIS --resolution 256p --models imagenet RUN

Up to 36 frames of each sequence. The object's IoU is that of the kept cluster which overlaps it best over all frames;
dropped is how often some cluster was; kept is how many were kept. Nothing is trained on the masks.

Measured 2026-11-27 on 2 vCPU, one seed, the tree of commit 738bedd before it was made, ten sequences (--names bus
horsejump-low kite-walk rollerblade soccerball bear hockey elephant tennis stroller). Learned is the run of
`mask_vos.py`'s docstring; of ImageNet's features the first rows alone.

                                   learned                    imagenet
                               IoU   kept  dropped        IoU   kept  dropped
    k-means                  0.208    5.0       0%      0.273    5.0       0%
    k-means, no places       0.222    5.0       0%      0.251    5.0       0%
    transport, learned       0.197    5.0       0%      0.262    4.9      10%
    the same, epsilon 0.07   0.180    4.9      10%
    the same, 8 clusters     0.274    8.0       0%
    k-means, 8 clusters      0.281    8.0       0%
    transport, bounded       0.198    5.0       0%
    transport, equal         0.195    5.0       0%

Transport does not win on real clips, so that k-means stays the default. Neither drops the background, which is no one
class to these features; more clusters help both. Features that learned correspondence in 432 steps cluster worse than
those they began from.
"""

import functools
from pathlib import Path

import jax
import numpy as np
import tyro
from tqdm import tqdm

from jaxvos.data import DavisSequence, list_sequences
from jaxvos.errors import exit_on_input_error
from jaxvos.models import Model, load_model
from jaxvos.self_training import cluster_frames
from jaxvos.systems import ClusterConfig, cluster_masks

WAYS = {
    "k-means": ClusterConfig(),
    "k-means, no places": ClusterConfig(position="none"),
    "transport, sizes learned": ClusterConfig(method="ot"),
    "the same, epsilon 0.07": ClusterConfig(method="ot", epsilon=0.07),
    "the same, 8 clusters": ClusterConfig(method="ot", epsilon=0.07, num_clusters=8),
    "k-means, 8 clusters": ClusterConfig(num_clusters=8),
    "transport, sizes bounded": ClusterConfig(method="ot", marginals="box"),
    "transport, sizes equal": ClusterConfig(method="ot", marginals="balanced"),
}
_FRAMES = 36


@functools.cache
def _read(sequence: DavisSequence) -> tuple[np.ndarray, np.ndarray]:
    frames = list(sequence.frames())
    picked = range(0, len(frames), -(-len(frames) // _FRAMES))
    return np.stack([frames[i] for i in picked]), np.stack([sequence.mask(i) == 1 for i in picked])


def judge(sequence: DavisSequence, model: Model, config: ClusterConfig, seed: int) -> tuple[float, int, bool]:
    """IoU of the best kept cluster with the object, how many are kept, and whether one was dropped."""
    frames, truth = _read(sequence)
    found = cluster_frames(jax.random.key(seed), frames, model.config, model.variables, config)
    masks = np.asarray(cluster_masks(found, size=truth.shape[1:]))
    kept = int(np.asarray(found.kept).sum())
    overlaps = [np.sum(truth & (masks == number)) / np.sum(truth | (masks == number)) for number in range(1, kept + 1)]
    dropped = bool(np.any(np.asarray(found.shares) > config.max_share))
    return float(max(overlaps, default=0.0)), kept, dropped


def main(davis: tyro.conf.Positional[Path], *, resolution: str | None = None, models: tuple[str, ...] = ("imagenet",),
         names: tuple[str, ...] = (), seed: int = 0) -> None:  # fmt: skip
    """Prints the table.

    Args:
      davis: DAVIS folder.
      resolution: folder within its JPEGImages.
      models: in whose features: runs of `jaxvos fit`, or imagenet.
      names: of sequences; all of them if left out.
      seed: of the starts.
    """
    sequences = [s for s in list_sequences(davis, resolution=resolution) if not names or s.name in names]
    for name in models:
        model = load_model(name)
        print(f"{Path(name).name + ', ' + str(len(sequences)) + ' sequences':32} IoU   kept  dropped", flush=True)
        for way, config in WAYS.items():
            scores = [judge(sequence, model, config, seed) for sequence in tqdm(sequences, leave=False)]
            overlap, kept, dropped = np.mean(scores, axis=0)
            print(f"  {way:30}{overlap:.3f}  {kept:4.1f}  {dropped:6.0%}", flush=True)


if __name__ == "__main__":
    with exit_on_input_error():
        tyro.cli(main, description=__doc__)
