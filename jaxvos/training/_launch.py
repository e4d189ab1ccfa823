"""From the command line to an experiment. The only file of this room that knows tyro."""

import contextlib
import difflib
import io
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import tyro

from jaxvos.errors import InputError, exit_on_input_error
from jaxvos.files import atomic_path
from jaxvos.training._config import ExperimentConfig
from jaxvos.training._hosts import connect
from jaxvos.training._provenance import as_json, describe_run, flat_fields

__all__ = ["launch", "parse"]

_T = TypeVar("_T")
_ConfigT = TypeVar("_ConfigT", bound=ExperimentConfig)
_SCHEDULE = ("num_steps", "log_every", "checkpoint_every", "keep", "eval_every")
_LAYOUT = ("parallel.model", "parallel.split_optimizer", "parallel.min_split", "remat", "profile")
_MAY_CHANGE = ("workdir", "compile_cache", *(f"training.{name}" for name in _SCHEDULE + _LAYOUT))


def launch(
    presets: Mapping[str, tuple[str, _ConfigT]], main: Callable[[_ConfigT], Any], args: Sequence[str] | None = None
) -> None:
    """Runs `main` on a preset, changed by options: `python experiments/x.py PRESET --training.optimizer.lr 3e-4`.

    The resolved configuration is written to `config.json` in the workdir, with commit, versions and device. Wrong
    input of any kind is one line on stderr and exit code 2, and leaves nothing behind. On many hosts the same command
    runs on each, with `--hosts.coordinator HOST:PORT --hosts.num-processes N --hosts.process-id I`, or
    `--hosts.detect`.

    Args:
        presets: name -> (one line of description, configuration).
        main: what to run.
        args: the command line, that of the process by default.
    """
    args = list(sys.argv[1:] if args is None else args)
    story = (sys.modules[main.__module__].__doc__ or "").strip()
    if args in (["-h"], ["--help"]):
        lines = [f"  {name:<20} {description}" for name, (description, _) in presets.items()]
        print("\n".join([story, "", "presets (PRESET --help shows the options):", *lines]).strip())
        return
    with exit_on_input_error():
        config = _parse_preset(presets, args, story)
        connect(config.hosts)
        if config.compile_cache is not None:
            jax.config.update("jax_compilation_cache_dir", str(config.compile_cache.resolve()))
        with _claimed(config):
            main(config)


def parse(
    kind: type[_T], args: Sequence[str], *, prog: str, default: _T | None = None, description: str | None = None
) -> _T:
    """Makes a dataclass from options of the command line.

    Args:
        kind: the dataclass; its field docstrings are the help.
        args: the options.
        prog: what the help calls the program.
        default: values of the fields that no option names, if not those of the class.
        description: what the help says first, if not the docstring of the class.

    Raises:
        InputError: in one line, if the options are wrong.
        SystemExit: with code 0, if they ask for help.
    """
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                kind,
                default=tyro.MISSING_NONPROP if default is None else default,
                args=list(args),
                prog=prog,
                description=description,
                config=(tyro.conf.AvoidSubcommands,),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
    raise InputError(_one_line(complaint.getvalue()))


def _parse_preset(presets: Mapping[str, tuple[str, _ConfigT]], args: Sequence[str], story: str) -> _ConfigT:
    names = ", ".join(presets)
    if not args or args[0].startswith("-"):
        raise InputError(f"the first argument must be a preset: {names}")
    preset, *options = args
    if preset not in presets:
        close = difflib.get_close_matches(preset, presets, n=1)
        hint = f"did you mean '{close[0]}'? " if close else ""
        raise InputError(f"there is no preset '{preset}'; {hint}the presets are: {names}")
    default = presets[preset][1]
    description = f"{presets[preset][0]}\n\n{story}"
    return parse(
        type(default), options, prog=f"{Path(sys.argv[0]).name} {preset}", default=default, description=description
    )


def _one_line(box: str) -> str:
    """Takes the message, and the names of similar options, out of what tyro draws: ruled sections, in a box or not."""
    lines = [line.strip("│").rstrip() for line in box.splitlines() if not line.startswith(("╭", "╰"))]
    help_text = [line for line in lines if line.startswith(" " * 9)]  # of the options named, further in than these
    lines = [line.strip() for line in lines if line not in help_text]
    sections = re.split(r"^[─-]{8,}$", "\n".join(lines), flags=re.MULTILINE)
    if not box.startswith("╭"):
        sections = sections[1:]  # without a box, the title is a section
    message = re.sub(r"__tyro-dummy-inner__\.?", "", " ".join(sections[0].split()))
    similar = []
    if "Perhaps you meant" in box:  # an option by each of its names: of these, the one most like what was typed
        for names in re.findall(r"^--[\w.-]+(?:, --[\w.-]+)*", "".join(sections[1:]), flags=re.MULTILINE):
            similar += difflib.get_close_matches(message.split(",")[0], names.split(", "), n=1, cutoff=0.0)
    hint = f"; did you mean {' or '.join(dict.fromkeys(similar[:3]))}?" if similar else ""
    return f"{message[:1].lower()}{message[1:]}{hint}"


@contextlib.contextmanager
def _claimed(config: ExperimentConfig):
    """Holds the configuration's workdir, which must be new or that of the same configuration.

    Raises:
        InputError: naming the first field that differs.
    """
    if config.workdir is None:
        yield
        return
    path = config.workdir / "config.json"
    resolved = as_json(config)
    is_new = not path.exists()
    if not is_new:
        _check_same(json.loads(path.read_text())["config"], resolved, config.workdir)
    if jax.process_index() > 0:
        yield
        return
    made = [folder for folder in (config.workdir, *config.workdir.parents) if not folder.exists()]
    with atomic_path(path) as partial:
        partial.write_text(json.dumps({"config": resolved, **describe_run()}, indent=2) + "\n")
    try:
        yield
    except InputError:
        if is_new and list(config.workdir.iterdir()) == [path]:
            path.unlink()
            for folder in made:
                folder.rmdir()
        raise


def _check_same(theirs: dict[str, Any], ours: dict[str, Any], workdir: Path) -> None:
    theirs, ours = flat_fields(theirs), flat_fields(ours)
    for name in [*ours, *(name for name in theirs if name not in ours)]:
        there, here = theirs.get(name, "absent"), ours.get(name, "absent")
        if there != here and name not in _MAY_CHANGE and not name.startswith("hosts."):
            raise InputError(
                f"{workdir} holds a run of another configuration: {name} is {there} there and {here} here; "
                "choose another --workdir"
            )
