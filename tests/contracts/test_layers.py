"""Who may import whom (the architecture as a table), and what `import jaxvos` must not load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "jaxvos"
EXPERIMENTS = PACKAGE.parent / "experiments"

# room: the rooms that it may import. `errors` and `files` import nothing of jaxvos and serve every room.
ALLOWED = {
    "errors": set(),
    "files": {"errors"},
    "typing": set(),
    "system": {"typing"},
    "solvers": {"typing"},
    "ops": {"typing"},
    "losses": {"typing", "ops", "solvers"},
    "nets": {"typing", "ops", "solvers"},
    "metrics": {"typing"},
    "systems": {"typing", "system", "ops", "solvers", "losses", "nets"},
    "data": {"typing", "system", "ops"},
    "training": {"typing", "system"},
    "models": {"typing", "system", "systems", "nets", "training"},
    "cards": {"system", "models", "training"},
    "inference": {"typing", "system", "ops", "training", "data", "models"},
    "evaluation": {"typing", "inference", "metrics", "system", "data", "drawing"},
    "self_training": {"typing", "ops", "nets", "system", "systems", "data", "training", "drawing"},
    "drawing": {"data"},
    "results": {"data", "drawing", "inference", "ops"},
}
ALWAYS = {"errors", "files"}
# third parties that have one door each
DOORS = {
    "orbax": {"training/_checkpoint.py"},
    "tensorflow_datasets": {"data"},
    "tyro": {"cli", "training/_launch.py"},
    "ott": set(),
    "scipy": {"metrics/_unsupervised.py"},
    "sklearn": set(),
    "torch": set(),
}


def _imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            assert node.module != "jaxvos" or path.name in ("__init__.py", "_provenance.py"), path


FILES = sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py" and p.parent.name != "cli")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_flow_one_way(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for module in _imports(path):
        parts = module.split(".")
        if parts[0] != "jaxvos" or len(parts) == 1:
            continue
        assert parts[1] == room or parts[1] in ALLOWED[room] | ALWAYS, f"{room} may not import {module}"
        if parts[1] != room:
            assert not any(part.startswith("_") for part in parts[2:]), f"{path.name} reaches into {module}"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_third_parties_have_one_door(path):
    name = str(path.relative_to(PACKAGE))
    for module in _imports(path):
        doors = DOORS.get(module.split(".")[0])
        assert doors is None or name in doors or name.split("/")[0] in doors, f"{name} may not import {module}"


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.rglob("*.py")), ids=lambda p: p.name)
def test_experiments_use_public_names_only(path):
    for module in _imports(path):
        assert not any(part.startswith("_") for part in module.split(".")), f"{path.name} reaches into {module}"
        assert module.split(".")[0] not in {p.stem for p in EXPERIMENTS.rglob("*.py")}, f"{path.name}: {module}"


def test_import_is_light():
    modules = ["tensorflow", "torch", "orbax", "tyro", "cv2", "av", "matplotlib", "ott", "sklearn"]
    code = (
        "import sys, jaxvos, jaxvos.solvers, jaxvos.system, jaxvos.data\n"
        f"print([m for m in {modules} if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert ast.literal_eval(out) == []
