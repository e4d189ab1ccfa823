"""Cards of the embedded models: one for each, whole, and telling what the weights file tells."""

import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxvos.models
from jaxvos.cards import FACTS, NOT_NOTED, SECTIONS, all_cards, read_card
from jaxvos.errors import InputError
from jaxvos.models import DEFAULT, FIRST_MASK, FLOW, MATCHER, PROPOSALS, embedded_models, load_model

FOLDER = Path(jaxvos.models.__file__).parent / "weights"
SCRIPTS = FOLDER.parents[1] / "experiments"
CARDS = {card.name: card for card in all_cards()}
each = pytest.mark.parametrize("card", CARDS.values(), ids=CARDS)


def test_weights_and_cards_are_pairs():
    assert set(CARDS) == {path.stem for path in FOLDER.glob("*.safetensors")} == {
        path.stem for path in FOLDER.glob("*.md")} == set(embedded_models())  # fmt: skip


@each
def test_a_card_is_whole(card):
    assert card.text == (FOLDER / f"{card.name}.md").read_text() and card.text.startswith(f"# {card.name}\n\n")
    assert tuple(card.facts) == FACTS and all(card.facts.values())
    assert tuple(re.findall("^## (.*)$", card.text, re.MULTILINE)) == SECTIONS
    for section in re.split("^## .*$", card.text, flags=re.MULTILINE)[1:]:
        assert section.strip()


@each
def test_a_card_says_what_the_weights_file_says(card):
    for fact in ("System", "Data", "Licence", "Command", "Commit", "Device"):
        assert card.facts[fact] == card.metadata[fact.lower()], fact
    assert ("non-commercial" in card.metadata["licence"]) == ("**Non-commercial use**" in card.text)
    assert ("imagenet" in str(card.metadata["started_from"])) == ("ImageNet" in card.facts["Started from"])
    scores = [f"{number:.3f}" for number in _numbers(card.metadata.get("scores", {}))]
    assert all(score in card.text for score in scores)
    if scores:  # the first is that of the held-out sequences
        assert scores[0] in card.facts["Score"]


@each
def test_a_card_names_scripts_that_exist(card):
    for fact in ("Command", "Scored by"):
        if card.facts[fact] != NOT_NOTED:
            program, script = card.facts[fact].split()[:2]
            assert program == "python" and (SCRIPTS.parent / script).is_file(), fact


@each
def test_a_score_is_in_the_section_of_scores(card):
    scores = card.text.split("## Scores")[1].split("##")[0]
    found = re.findall(r"\d\.\d+", card.facts["Score"])
    assert found and all(number in scores for number in found)


def test_what_is_counted():
    card, model = CARDS[FLOW], load_model(FLOW)
    assert card.parameters == sum(leaf.size for leaf in jax.tree.leaves(model.variables["params"]))
    assert card.size == (FOLDER / f"{FLOW}.safetensors").stat().st_size and card.system is model.system
    running = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(load_model(DEFAULT).variables["batch_stats"]))
    assert running > 0 and 2 * (CARDS[DEFAULT].parameters + running) <= CARDS[DEFAULT].size  # float16


def test_prompts():
    assert {name: card.given for name, card in CARDS.items()} == {
        DEFAULT: "flow", MATCHER: "a first mask, proposals; learns online", PROPOSALS: "nothing",
        FLOW: "the next frame", "segflow-lite": "the next frame; learns online from a first mask",
        FIRST_MASK: "masks on any frame",
    }  # fmt: skip
    assert {name: card.default_for for name, card in CARDS.items()} == {
        DEFAULT: "no mask", MATCHER: "masks with --proposals or --online", PROPOSALS: "making proposals", FLOW: "",
        "segflow-lite": "", FIRST_MASK: "masks",
    }  # fmt: skip


def test_a_card_by_the_name_of_its_system(monkeypatch):
    monkeypatch.setattr(jaxvos.models, "load_variables", None)  # no weights are read
    assert read_card("stcn") == read_card("stcn-lite") == CARDS["stcn-lite"]
    with pytest.raises(InputError, match="no embedded model 'mask-rcn'; did you mean 'mask.rcnn"):
        read_card("mask-rcn")


def test_a_card_that_is_missing(tmp_path, monkeypatch, tiny_model):
    monkeypatch.setattr(jaxvos.models, "_FOLDER", tmp_path)
    with pytest.raises(InputError, match="no model is embedded"):
        all_cards()
    shutil.copy(tiny_model, tmp_path / "small.safetensors")
    with pytest.raises(InputError, match="the card of small is missing: put .*small.md back"):
        all_cards()


def _numbers(tree):
    return [leaf for leaf in jax.tree.leaves(dict(tree)) if isinstance(leaf, float)]
