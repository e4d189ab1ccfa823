"""`jaxvos models` as a user types it; cards have tests of their own."""

import pytest

import jaxvos.models
from jaxvos.cards import read_card
from jaxvos.models import FIRST_MASK, default_model, embedded_models


@pytest.fixture(autouse=True)
def _light(monkeypatch):
    """No weights are read, and nothing is traced."""
    for name in ("load_variables", "abstract_variables", "jax"):
        monkeypatch.setattr(jaxvos.models, name, None)


def _rows(out, table):
    """The header of one of the tables, and its rows by the names of models."""
    header, *rows = out.split("\n\n")[table].splitlines()
    return header, {row.split()[0]: row for row in rows}


def test_the_table(run):
    code, out, err = run("models")
    assert code == 0 and err == ""
    header, uses = _rows(out, 0)
    assert header.split("  ")[0] == "model" and "given" in header and "default for" in header
    header, stories = _rows(out, 1)
    assert all(word in header for word in ("MB", "parameters", "held-out score", "licence", "data"))
    assert list(uses) == list(stories) == list(embedded_models())
    for name in uses:
        card = read_card(name)
        assert card.metadata["system"] in uses[name] and card.given in uses[name]
        assert uses[name].endswith(card.default_for or " -")
        licence = "non-commercial" if "non-commercial" in card.metadata["licence"] else "Apache-2.0"
        found = f"{card.size / 1e6:.1f}", f"{card.parameters:,}", card.facts["Score"], licence
        assert all(cell in stories[name] for cell in found)
        assert card.metadata["data"].split(" without")[0] in stories[name] and "without" not in stories[name]
    assert "J 0.712, F 0.676" in stories["stcn-lite"] and "masks on any frame" in uses["stcn-lite"]


def test_defaults_are_those_of_segment(run, monkeypatch):
    taken = default_model(marked=True, matching=False)
    assert taken == FIRST_MASK
    assert _rows(run("models").out, 0)[1][taken].endswith("  masks")
    monkeypatch.setattr(jaxvos.models, "FIRST_MASK", "segflow-lite")
    uses = _rows(run("models").out, 0)[1]
    assert uses["segflow-lite"].endswith("  masks") and uses[taken].endswith("  -")


@pytest.mark.parametrize("name", ["stcn-lite", "stcn"])
def test_a_card(run, name):
    code, out, err = run("models", name)
    assert code == 0 and err == "" and out == read_card("stcn-lite").text
    assert out.startswith("# stcn-lite\n") and "## Where it fails" in out


@pytest.mark.parametrize(
    ("name", "hint"),
    [("stcn-light", "did you mean 'stcn-lite'? there are: dmm-net-lite, mask-rcnn-lite, "),
     ("xyz", "'xyz'; there are: dmm"), ("../weights/stcn-lite", "there are")],
)  # fmt: skip
def test_a_name_that_is_unknown(run, name, hint):
    code, out, err = run("models", name)
    assert code == 2 and out == "" and err.count("\n") == 1
    assert f"there is no embedded model '{name}'" in err and hint in err
