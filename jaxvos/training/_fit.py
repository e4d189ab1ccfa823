"""The one training loop. It knows no system and no data set."""

import contextlib
import functools
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import jax

from jaxvos.errors import InputError
from jaxvos.system import Clip, System
from jaxvos.training._checkpoint import Checkpoints
from jaxvos.training._checks import check_metrics, clip_shapes, closed, finite_means, is_due, next_clip, program_size
from jaxvos.training._config import TrainingConfig
from jaxvos.training._hosts import end_with_the_others
from jaxvos.training._initial import start_from
from jaxvos.training._layers import compute_layers
from jaxvos.training._optimizer import make_optimizer
from jaxvos.training._plateau import Plateau
from jaxvos.training._prefetch import prefetch
from jaxvos.training._profile import Profile
from jaxvos.training._progress import Progress
from jaxvos.training._provenance import as_json, describe_run
from jaxvos.training._sharding import make_mesh, on_this_process, shard_clip, state_shardings
from jaxvos.training._signals import note_stop_signals
from jaxvos.training._state import TrainState, create_state
from jaxvos.training._step import all_finite, train_step
from jaxvos.training._writer import LogWriter
from jaxvos.typing import Variables

__all__ = ["Data", "Evaluate", "fit"]


# From the number of updates done to the batches from there on; always the same ones, so that a run can resume. A batch
# is this process's part of the clips: NumPy arrays of one shape throughout, which are not written to again.
Data = Callable[[int], Iterator[Clip]]

# From variables and the number of updates done to named numbers. It must copy what it wants to keep of the variables:
# the next update reuses their memory. With several processes each calls it, with copies of its own; where each looks at
# its share of the data, the numbers must be those of all of them (`jaxvos.data.share_of`, `gather`).
Evaluate = Callable[[Variables, int], Mapping[str, float]]


def fit(
    system: System,
    data: Data,
    config: TrainingConfig,
    *,
    workdir: Path | str | None = None,
    evaluate: Evaluate | None = None,
    variables: Variables | None = None,
    progress: bool = True,
) -> TrainState:
    """Trains a system, or goes on training it.

    The state comes from the first of these that there is: the latest checkpoint in `workdir`; the weights at
    `config.init_from`, where names and shapes agree; `variables`; the system's own `init` (each fills in what the
    one before leaves open). A resumed run sees the batches and the randomness of an uninterrupted one and ends in
    the same state, bit for bit. On SIGTERM or SIGINT it saves, and exits with code 128 + the signal's number.

    Args:
        system: what is trained.
        data: function from the number of updates done to an iterator of batches.
        config: how to train.
        workdir: folder for checkpoints and the log; without one nothing is written.
        evaluate: function of variables and step to named numbers, called every `eval_every` steps and at the end.
        variables: initial variables, or a part of their tree (a pretrained backbone, say).
        progress: whether to show a bar and a few words.

    Returns:
        The state after `config.num_steps` updates; with `config.patience` perhaps after fewer, with the variables that
        were evaluated best. With `config.ema` its parameters are their running mean.

    Raises:
        InputError: if configuration, data or checkpoint do not fit the system.
        FloatingPointError: if the loss, its gradient or the variables are not finite; the step, its clips and the last
            good checkpoint, which stays, are named.
    """
    with contextlib.ExitStack() as stack:
        # ---- mesh ----------------------------------------------------------------------------------------------
        mesh = make_mesh(config.parallel.model)
        leader = jax.process_index() == 0
        say = print if progress and leader else lambda message: None

        # ---- data ----------------------------------------------------------------------------------------------
        checkpoints = log = saved_step = None
        if workdir is not None:
            checkpoints = Checkpoints(
                Path(workdir) / "checkpoints",
                keep=config.keep,
                best_metric=config.best_metric,
                best_mode=config.best_mode,
            )
            stack.callback(checkpoints.close)
            saved_step = checkpoints.latest_step()
        start = saved_step or 0
        clips = data(min(start, config.num_steps - 1))
        lift = functools.partial(shard_clip, mesh=mesh, parts=config.accumulate)
        batches = stack.enter_context(prefetch(clips, lift))
        first = next_clip(batches, start)
        shapes = clip_shapes(first)

        # ---- abstract state ------------------------------------------------------------------------------------
        key = jax.random.key(config.seed)
        params = jax.eval_shape(system.init, key, first)["params"]
        tx = make_optimizer(config.optimizer, params, config.num_steps)
        create = functools.partial(create_state, system=system, tx=tx, averaged=config.ema is not None)
        abstract = jax.eval_shape(create, key, first)
        shardings = state_shardings(abstract, mesh, config.parallel)
        everywhere = shardings.step

        # ---- create or restore ---------------------------------------------------------------------------------
        if checkpoints is not None and saved_step is not None:
            state = checkpoints.restore(saved_step, abstract, shardings)
            say(f"going on from step {saved_step} of {workdir}")
        else:
            state = jax.jit(create, out_shardings=shardings)(key, first)
            state = start_from(state, shardings, variables=variables, path=config.init_from, say=say)
        if start >= config.num_steps:
            return on_this_process(state._replace(variables=state.result))

        # ---- compile, once -------------------------------------------------------------------------------------
        began = time.perf_counter()
        loss = compute_layers(system.loss, precision=config.precision, remat=config.remat)
        update = functools.partial(train_step, system=system._replace(loss=loss), tx=tx, ema=config.ema,
                                   frozen=config.optimizer.frozen, accumulate=config.accumulate)  # fmt: skip
        jitted = jax.jit(closed(update), donate_argnums=0, out_shardings=(shardings, everywhere))
        # from here on another shape is an error, never a second compilation
        step_fn = jitted.lower(state, first).compile()
        is_finite = jax.jit(all_finite, out_shardings=everywhere)
        compile_seconds = time.perf_counter() - began
        say(f"compiled the step in {compile_seconds:.1f} s for {mesh.size} x {mesh.devices.flat[0].device_kind}")

        # ---- loop: step, log, evaluate, checkpoint -------------------------------------------------------------
        story = {"config": as_json(config), **describe_run()}
        if workdir is not None and leader:
            log = LogWriter(Path(workdir), start)
            stack.callback(log.close)
        plateau = Plateau(patience=config.patience, min_delta=config.min_delta, mode=config.best_mode)
        request = stack.enter_context(note_stop_signals(enabled=checkpoints is not None))
        profile = stack.enter_context(Profile(workdir, config.profile if leader else None))
        batch, good = first.images.shape[0], saved_step
        bar = Progress(start, config.num_steps, batch, shown=progress)
        stack.callback(bar.close)
        stack.enter_context(end_with_the_others())
        extra = {"compile_seconds": compile_seconds, **program_size(step_fn)}
        pending: list[dict[str, jax.Array]] = []  # of the steps since the last line of the log; still on the devices
        batches = itertools.chain(iter([first]), batches)
        del first  # the iterator forgets it too, once it has given it
        for step in range(start + 1, config.num_steps + 1):
            clip = next_clip(batches, step - 1)
            if clip_shapes(clip) != shapes:
                raise InputError(f"the batch of step {step} holds {clip_shapes(clip)}; those before held {shapes}")
            profile.before(step)
            state, scalars = step_fn(state, clip)
            pending.append(scalars)
            jax.block_until_ready(pending[-2:][0])  # the host runs at most one step ahead
            bar.step()
            profile.after(step)

            last, over = step == config.num_steps, False
            evaluating = evaluate is not None and (last or is_due(config.eval_every, step))
            ranking = evaluating and config.best_metric is not None
            stopping = request.agreed(step)
            saving = last or stopping or ranking or is_due(config.checkpoint_every, step)
            if not (saving or evaluating or is_due(config.log_every, step)):
                continue
            saved = "no checkpoint was saved" if good is None else f"the last good checkpoint is {good} in {workdir}"
            means = finite_means(jax.device_get(pending), step, batch=batch, saved=saved)
            pending.clear()
            speed = bar.lap()
            bar.show({"loss": means["loss"], "clips/s": speed})
            if log is not None:
                log.write(step, {**means, "clips_per_second": speed, **extra})
                extra = {}

            bar.pause()
            metrics = None
            if evaluate is not None and evaluating:
                metrics = {name: float(value) for name, value in evaluate(on_this_process(state.result), step).items()}
                check_metrics(metrics, config.best_metric)
                over = ranking and plateau.update(metrics[str(config.best_metric)], state.result)
                if log is not None:
                    log.write(step, {f"eval/{name}": value for name, value in metrics.items()})
            if saving and not is_finite(state.variables):
                raise FloatingPointError(f"variables are not finite after step {step}; {saved}")
            if saving and checkpoints is not None:
                checkpoints.save(step, state, story, metrics)
                good = step
            if stopping or over:
                break
            bar.resume()

        # ---- close: on leaving, what was opened is, last first -------------------------------------------------
        if request.signal is not None:
            say(f"stopped by signal {request.signal} after step {step}; saving it in {workdir}")
        if checkpoints is not None:
            checkpoints.close()  # here, where another signal is still noted, not died of
        if request.signal is not None:
            raise SystemExit(128 + request.signal)
        best = state.result if plateau.variables is None else plateau.variables
        return on_this_process(state._replace(variables=best))
