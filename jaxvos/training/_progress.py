"""What the person at the terminal sees, and how fast the run is."""

import sys
import time
from collections.abc import Mapping

import jax
from tqdm import tqdm

__all__ = ["Progress"]


class Progress:
    """A bar with the loss, clips per second and the time left; silent if `shown` is False or on other processes."""

    def __init__(self, start: int, total: int, batch: int, *, shown: bool):
        self._batch = batch
        self._bar = tqdm(
            total=total,
            initial=start,
            unit="step",
            disable=not shown or jax.process_index() != 0,
            mininterval=0.5 if sys.stderr.isatty() else 30.0,
            dynamic_ncols=True,
        )
        self._steps, self._seconds, self._since = 0, 0.0, time.perf_counter()

    def step(self) -> None:
        """Notes that a step was taken."""
        self._steps += 1
        self._bar.update()

    def pause(self) -> None:
        """Stops the clock, while evaluating or saving."""
        self._seconds += time.perf_counter() - self._since

    def resume(self) -> None:
        """Starts the clock again."""
        self._since = time.perf_counter()

    def lap(self) -> float:
        """Returns clips per second since the lap before, and starts another."""
        now = time.perf_counter()
        speed = self._steps * self._batch / max(self._seconds + now - self._since, 1e-9)
        self._steps, self._seconds, self._since = 0, 0.0, now
        return speed

    def show(self, scalars: Mapping[str, float]) -> None:
        """Shows numbers beside the bar."""
        self._bar.set_postfix({name: f"{value:.4g}" for name, value in scalars.items()}, refresh=False)

    def close(self) -> None:
        """Leaves the bar as it is."""
        self._bar.close()
