"""The public surface: documented, complete, randomness first and called `key`, engineering keyword-only."""

import importlib
import inspect
import re

import pytest

ROOMS = ["solvers", "ops", "nets", "losses", "metrics", "systems", "data", "training", "system", "typing", "errors",
         "files", "inference", "evaluation", "models", "cards", "results", "drawing", "self_training",
         "cli"]  # fmt: skip
# mathematics that may be left out, or what a reader of the equation expects by position
POSITIONAL_DEFAULTS = {
    "sinkhorn": {"a", "b"}, "streaming_sinkhorn": {"a", "b"}, "transportnet": {"config"}, "dmm_net": {"config"},
    "mask_rcnn": {"config"}, "pwc_net": {"config"}, "segflow": {"config"}, "stcn": {"config"},
    "xmem": {"config"}, "mask_vos": {"config"}, "cluster_video": {"config"}, "small_net": {"encoder"},
    "demo_video": {"seed"},
    "write_flow": {"valid"}, "launch": {"args"}, "main": {"args"}, "save_variables": {"metadata"},
    "no_memory": {"masks"}, "load_model": {"source"},
}  # fmt: skip


def _functions():
    for room in ROOMS:
        module = importlib.import_module(f"jaxvos.{room}")
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isfunction(value):
                yield pytest.param(name, value, id=f"{room}.{name}")


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_says_what_it_is_and_exports_what_it_says(room):
    module = importlib.import_module(f"jaxvos.{room}")
    assert module.__doc__ and module.__all__
    assert all(hasattr(module, name) for name in module.__all__)
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        value = getattr(module, name)
        if (inspect.isclass(value) and value.__module__.startswith("jaxvos")) or inspect.isfunction(value):
            assert value.__doc__ and value.__doc__.strip(), f"{room}.{name} is not documented"
            assert not re.match(r"\w+\(.*\)", value.__doc__), f"{room}.{name} has only the generated docstring"


@pytest.mark.parametrize(("name", "function"), _functions())
def test_signatures(name, function):
    parameters = list(inspect.signature(function).parameters.values())
    names = [p.name for p in parameters]
    assert not {"rng", "prng", "seed_key"} & set(names)
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if "key" in names:
        assert names[0] == "key", "randomness comes first"
    defaults = {p.name for p in positional if p.default is not p.empty}
    assert defaults == POSITIONAL_DEFAULTS.get(name, set()), f"{defaults} must be keyword-only"
    assert not any(p.kind is p.VAR_KEYWORD for p in parameters) or name in ("evolve", "match")
    assert all(p.annotation is not p.empty for p in parameters), "annotate every argument"
