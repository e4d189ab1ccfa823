"""End-point errors of flow on pairs in Middlebury's layout, beside no flow and OpenCV's DIS, and pictures of them.

    python experiments/middlebury.py FLOW --models pwc_net runs/pwc --output pairs.png

FLOW holds a folder for each pair, with frame10.png, frame11.png and flow10.flo.
"""

from pathlib import Path

import numpy as np
import tyro

from jaxvos.data import read_flow, read_image
from jaxvos.drawing import contact_sheet, write_image
from jaxvos.errors import InputError, exit_on_input_error
from jaxvos.inference import open_flow
from jaxvos.metrics import flow_metric
from jaxvos.ops import flow_to_color


def main(folder: tyro.conf.Positional[Path], *, models: tuple[str, ...] = ("pwc_net",), output: Path | None = None
         ) -> None:  # fmt: skip
    """Prints the table.

    Args:
      folder: the pairs.
      models: flow networks, as `jaxvos flow --model` takes them.
      output: picture with a row for each pair: the frame, the true flow, and that of every method, in one scale.
    """
    pairs = sorted(path.parent for path in folder.glob("*/flow10.flo"))
    if not pairs:
        raise InputError(f"no PAIR/flow10.flo in {folder}: give a folder of pairs in Middlebury's layout")
    providers = {name: open_flow(name) for name in ("dis", *models)}
    errors: dict[str, list[float]] = {}
    pictures, labels = [], []
    for pair in pairs:
        images = [read_image(pair / f"frame{number}.png") for number in (10, 11)]
        truth, known = read_flow(pair / "flow10.flo")
        truth = np.where(known[..., None], truth, np.float32(0))
        flows = {"zero": np.zeros_like(truth)} | {n: p(*images, name=pair.name) for n, p in providers.items()}
        radius = float(np.linalg.norm(truth, axis=-1).max())
        pictures += [images[0], _painted(truth, radius)]
        labels += [pair.name, "true"]
        for name, flow in flows.items():
            metric = flow_metric()
            scores = metric.compute(metric.update(metric.zero(), flow, truth, valid=known))
            errors.setdefault(name, []).append(scores.epe)
            if name != "zero":
                pictures.append(_painted(flow, radius))
                labels.append(f"{Path(name).name} {scores.epe:.2f}")
    print(f"{'':24}" + "".join(f"{pair.name:>13}" for pair in pairs) + f"{'mean':>13}")
    for name, values in errors.items():
        print(f"{name:24}" + "".join(f"{value:13.3f}" for value in (*values, float(np.mean(values)))))
    if output is not None:
        write_image(output, contact_sheet(pictures, columns=2 + len(providers), labels=labels))


def _painted(flow: np.ndarray, radius: float) -> np.ndarray:
    return np.asarray(255 * flow_to_color(flow, max_radius=radius)).round().astype(np.uint8)


if __name__ == "__main__":
    with exit_on_input_error():
        tyro.cli(main)
