"""Attention by relation: heads built to attend to one kind of token, and relations by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hand_made import hand_made, previous_step, rewarded, same_cell, step_after
from test_transformer import CONFIG, random_model
from windows import labeled

from ad.interpret.analyses.attention import attention_sums
from ad.interpret.contexts import Contexts
from ad.interpret.relations import relation_names, relations

HEADS = {
    "previous step": previous_step,
    "same cell": same_cell,
    "step after it": step_after,
    "rewarded": rewarded,
}


@pytest.fixture
def contexts(spec, random_window):
    """Random windows of twenty decisions, in episodes of four."""

    def draw(count: int) -> Contexts:
        window = random_window(count, 20, 0)
        window["time"][:, 1:] = torch.arange(20) % 4
        return labeled(window, spec, np.r_[-1, np.arange(20) // 4])

    return draw


@pytest.mark.parametrize("relation", HEADS)
@pytest.mark.parametrize(("layer", "head"), [(0, 1), (1, 0)])
def test_a_head_built_for_a_relation_has_all_its_attention_there(
    spec, contexts, relation, layer, head
):
    model, names = hand_made(spec, layers=2), None
    HEADS[relation](model, layer, head)
    names = relation_names(model)
    sums, counts = attention_sums(model, contexts(8))
    scores = sums.sum((0, 1)) / counts.sum((0, 1))  # [1 + heads, relations]
    heads = [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert scores[1 + heads.index((layer, head)), names.index(relation)] == pytest.approx(1)
    others = [1 + number for number, other in enumerate(heads) if other != (layer, head)]
    np.testing.assert_allclose(scores[others], scores[[0, 0, 0]], rtol=1e-5)  # they are uniform


# Decisions at the cells 3, 4, 3, 3, and after the second and third of them episodes end.
CELLS = {"observation": [9, 3, 4, 3, 3], "next_observation": [9, 4, 5, 3, 9]}
WINDOW = CELLS | {"action": [5, 1, 2, 1, 5], "reward": [float("nan"), 0.0, 1.0, 0.0, float("nan")]}
WINDOW |= {"time": [0, 0, 1, 0, 1], "step": [0, 0, 1, 2, 3]}
WINDOW |= {"valid": [False, True, True, True, True]}
# The tokens in each relation to the fourth decision.
LAST = {
    "fused": {  # o1, o2 (1), o3 (2), o4 (3): in brackets the transition that a token tells
        **{"itself": [3], "previous step": [2], "same cell": [0, 2], "step after it": [1]},
        **{"rewarded": [2], "same episode": [2], "episode start": [0, 2]},
    },
    "separate": {  # o1 a1 r1 o2 a2 r2 o3 a3 r3 o4
        **{"itself": [9], "previous step": [6, 7, 8], "same cell": [0, 6]},
        **{"step after it": [1, 2, 7, 8], "rewarded": [5], "same episode": [6, 7, 8]},
        **{"episode start": [0, 1, 2, 6, 7, 8]},
    },
    "modal": {  # o1 o2 o3 o4 | - a1 a2 a3 | - r1 r2 r3
        **{"itself": [3, 7, 11], "previous step": [2, 6, 10], "same cell": [0, 2]},
        **{"step after it": [5, 9], "rewarded": [10], "same episode": [2, 6, 10]},
        **{"episode start": [0, 2, 4, 6, 8, 10]},
    },
    "conditioned": {  # o1 a1 o2 a2 o3 a3 o4
        **{"state": [6], "earlier state": [0, 2, 4], "earlier action": [1, 3, 5]},
        **{"previous step": [4, 5], "same cell": [0, 4]},
        **{"step after it": [1, 5], "same episode": [4, 5], "episode start": [0, 1, 4, 5]},
    },
}


@pytest.mark.parametrize("tokenizer", LAST)
def test_the_relations_of_a_decision_are_those_counted_by_hand(spec, tokenizer):
    model = random_model(spec, replace(CONFIG, tokenizer=tokenizer))
    window = {name: torch.tensor([values]) for name, values in WINDOW.items()}
    contexts = labeled(window, spec, np.array([[-1, 0, 0, 1, 1]]))
    found = {
        name: mask[0, -1].nonzero()[:, 0].tolist()
        for name, mask in relations(model, contexts).items()
    }
    assert found == LAST[tokenizer]
