"""The tokenizers and encoders: which vectors are added up in each token.

Every row of every embedding table gets a coordinate of its own, so that a token can be read back as
the set of rows that were added up in it.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from ad.config.schema import ModelConfig
from ad.data.spec import Spec
from ad.models.encoders.offsets import MAX_SHIFT, OffsetEncoder
from ad.models.rewards import RewardProjection
from ad.registry import ENCODERS, TOKENIZERS
from envs.spaces import Discrete

ROOM = Discrete(6, (2, 3))  # a room of two rows and three columns
SPEC = Spec({"": ROOM}, 5, (0.0, 1.0), (0.0, 1.0), 4)
TABULAR = [name for name in ENCODERS if ENCODERS.load(name).supports(ROOM)]
NONE = float("nan")
CONFIG = ModelConfig(encoder="table", width=64)
# Entry 0 is padding; then come three transitions and a decision. Some o' differ from the o that
# follows them, as at the end of an episode.
WINDOW = {
    "observation": [6, 0, 1, 4, 5],
    "action": [5, 3, 2, 1, 5],
    "reward": [NONE, 0.0, 1.0, 0.0, NONE],
    "next_observation": [6, 1, 3, 2, 6],
    "time": [0, 0, 1, 2, 3],
    "valid": [False, True, True, True, True],
}


ORDERS = [*((name, "after") for name in TOKENIZERS), ("separate", "before")]


def tables(tokenizer: nn.Module) -> dict[str, nn.Embedding]:
    """Return the embedding tables of a tokenizer by short names, the encoder's first."""
    by_name = {
        "o": tokenizer.encoders[0].vectors,
        "a": tokenizer.action,
        "r": tokenizer.reward,
        "time": tokenizer.position.vectors,
    }
    return {short: table for short, table in by_name.items() if table is not None}


def roles(tokenizer: nn.Module) -> dict[str, nn.Linear]:
    """Return the projections of an observation in the other roles, by short names."""
    maps = {"before": getattr(tokenizer, "prev_obs_proj", None), "o'": tokenizer.next_obs_proj}
    return {short: role for short, role in maps.items() if role is not None}


def read_tokens(name: str, **settings) -> list[set[str]]:
    """Return the tokens of WINDOW, each as the names of the table rows that are added up in it."""
    tokenizer = TOKENIZERS.load(name)(SPEC, replace(CONFIG, **settings))
    names: list[str] = []
    for short, table in tables(tokenizer).items():
        nn.init.zeros_(table.weight)
        for row in range(len(table.weight)):
            table.weight.data[row, len(names)] = 1.0
            names.append(f"{short}{row}")
    for short, role in roles(tokenizer).items():
        nn.init.zeros_(role.weight)
        for row in range(len(tokenizer.encoders[0].vectors.weight)):
            role.weight.data[len(names), row] = 1.0
            names.append(f"{short}{row}")
    tokens = tokenizer({field: torch.tensor([values]) for field, values in WINDOW.items()})
    tokens = tokens.flatten(0, 1)
    assert set(tokens.unique().tolist()) <= {0.0, 1.0}
    return [{names[int(c)] for c in token.nonzero()} for token in tokens]


def test_a_fused_token_holds_the_current_observation_and_the_whole_previous_transition():
    assert read_tokens("fused") == [
        {"o0", "time0", "before6", "a5", "r2", "o'6"},
        {"o1", "time1", "before0", "a3", "r0", "o'1"},
        {"o4", "time2", "before1", "a2", "r1", "o'3"},
        {"o5", "time3", "before4", "a1", "r0", "o'2"},
    ]


def test_separate_tokens_come_in_the_order_in_which_things_happen_and_share_their_time():
    assert read_tokens("separate") == [
        {"o0", "time0"},
        {"a3", "time0"},
        {"r0", "o'1", "time0"},
        {"o1", "time1"},
        {"a2", "time1"},
        {"r1", "o'3", "time1"},
        {"o4", "time2"},
        {"a1", "time2"},
        {"r0", "o'2", "time2"},
        {"o5", "time3"},
    ]


def test_a_reward_before_its_decision_is_that_of_the_transition_before():
    assert read_tokens("separate", reward_token="before") == [
        {"r2", "o'6", "time0"},
        {"o0", "time0"},
        {"a3", "time0"},
        {"r0", "o'1", "time1"},
        {"o1", "time1"},
        {"a2", "time1"},
        {"r1", "o'3", "time2"},
        {"o4", "time2"},
        {"a1", "time2"},
        {"r0", "o'2", "time3"},
        {"o5", "time3"},
    ]


def test_streams_hold_what_is_known_at_a_decision_one_modality_each():
    assert read_tokens("modal") == [
        *({"o0", "time0"}, {"o1", "time1"}, {"o4", "time2"}, {"o5", "time3"}),
        *({"a5", "time0"}, {"a3", "time1"}, {"a2", "time2"}, {"a1", "time3"}),
        {"r2", "o'6", "time0"},
        {"r0", "o'1", "time1"},
        {"r1", "o'3", "time2"},
        {"r0", "o'2", "time3"},
    ]


def test_conditioned_tokens_leave_out_what_an_action_led_to():
    assert read_tokens("conditioned") == [
        {"o0", "time0"},
        {"a3", "time0"},
        {"o1", "time1"},
        {"a2", "time1"},
        {"o4", "time2"},
        {"a1", "time2"},
        {"o5", "time3"},
    ]


def test_what_is_asked_for_has_a_token_of_its_own_before_its_decision():
    asked = nn.Linear(1, 8)
    tokenizer = TOKENIZERS.load("conditioned")(SPEC, replace(CONFIG, width=8), {"asked": asked})
    window = {field: torch.tensor([values]) for field, values in WINDOW.items()}
    window["asked"] = torch.tensor([[0.0, 5.0, 3.0, 2.0, 1.0]])
    tokens = tokenizer(window)
    assert tokens.shape == (1, tokenizer.num_tokens(4), 8) == (1, 11, 8)
    expected = asked(window["asked"][0, 1:, None]) + tokenizer.position.vectors.weight
    torch.testing.assert_close(tokens[0, ::3], expected)
    without = TOKENIZERS.load("conditioned")(SPEC, replace(CONFIG, width=8))
    without.load_state_dict(tokenizer.state_dict(), strict=False)
    torch.testing.assert_close(tokens[0, 1::3], without(window)[0, ::2])
    assert tokenizer.at_decisions(torch.arange(11)[None]).flatten().tolist() == [1, 4, 7, 10]


@pytest.mark.parametrize(("name", "reward_token"), ORDERS)
def test_the_terms_of_a_token_add_up_to_it_and_name_what_it_tells(name, reward_token):
    settings = replace(CONFIG, width=8, reward_token=reward_token)
    tokenizer = TOKENIZERS.load(name)(SPEC, settings, {"return_to_go": nn.Linear(1, 8)})
    window = {field: torch.tensor([values]) for field, values in WINDOW.items()}
    window["return_to_go"] = torch.tensor([[0.0, 5.0, 3.0, 2.0, 1.0]])
    tokens, terms = tokenizer(window), tokenizer.terms(window)
    assert {term.shape for term in terms.values()} == {tokens.shape}
    torch.testing.assert_close(sum(terms.values()), tokens)
    assert terms.keys() >= {"return-to-go", "state", "action", "time"}
    at_decisions = {n for n, term in terms.items() if tokenizer.at_decisions(term).any()}
    assert at_decisions == {*tokenizer.decision_terms}
    if name == "conditioned":
        told = [
            {term for term, vectors in terms.items() if vectors[0, token].any()}
            for token in range(3)
        ]
        assert told == [{"return-to-go", "time"}, {"state", "time"}, {"action", "time"}]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_without_next_observation_no_token_shows_where_an_action_led(name):
    shown = [{part for part in token if "'" not in part} for token in read_tokens(name)]
    assert read_tokens(name, next_observation=False) == shown


@pytest.mark.parametrize(("name", "order"), ORDERS)
def test_actions_are_predicted_from_the_tokens_of_the_current_observation(name, order):
    tokenizer = TOKENIZERS.load(name)(SPEC, replace(CONFIG, width=8, reward_token=order))
    current = {"o0", "o1", "o4", "o5"}
    tokens = read_tokens(name, reward_token=order)
    at = [n for n, token in enumerate(tokens) if token & current]
    hidden = torch.arange(len(tokens)).view(tokenizer.streams, -1, 1)
    assert tokenizer.at_decisions(hidden).flatten().tolist() == at
    assert tokenizer.at_last_decision(hidden).flatten().tolist() == at[-1:]


@pytest.mark.parametrize("encoder", TABULAR)
def test_an_encoder_has_a_vector_for_each_observation_and_another_for_none(encoder):
    vectors = ENCODERS.load(encoder)(ROOM, 16).eval().table()
    assert vectors.shape == (7, 16)
    assert len(vectors.unique(dim=0)) == 7


@pytest.mark.parametrize("encoder", TABULAR)
def test_every_parameter_of_an_encoder_learns(encoder):
    module = ENCODERS.load(encoder)(ROOM, 16)
    module.table().square().sum().backward()
    assert all((p.grad != 0).any(dim=1).all() for p in module.parameters())


def test_a_factored_vector_is_the_sum_of_its_row_and_its_column():
    module = ENCODERS.load("factored")(ROOM, 16)
    rows, columns = (table.weight for table in module.vectors)
    assert (len(rows), len(columns)) == (3, 4)  # the last of each stands for none
    for observation, vector in enumerate(module.table()[:6]):
        row, column = np.unravel_index(observation, (2, 3))
        torch.testing.assert_close(vector, rows[row] + columns[column])
    torch.testing.assert_close(module.table()[6], rows[2] + columns[3])


def test_a_table_has_nothing_in_common_between_two_observations():
    module = ENCODERS.load("table")(ROOM, 16)
    before = module.table().detach().clone()
    module.vectors.weight.data[4] += 1
    assert (module.table() != before).any(dim=1).tolist() == [o == 4 for o in range(7)]


@pytest.fixture
def offsets() -> OffsetEncoder:
    return OffsetEncoder(ROOM, 16)


def test_an_offset_vector_depends_on_the_offset_from_the_center_in_a_room_of_any_size(offsets):
    larger = OffsetEncoder(Discrete(35, (5, 7)), 16)
    larger.load_state_dict(offsets.state_dict())
    small, large = offsets.eval().table(), larger.eval().table()
    # The center of 2 x 3 cells is (1, 1), that of 5 x 7 is (2, 3).
    torch.testing.assert_close(small[:6].view(2, 3, 16), large[:35].view(5, 7, 16)[1:3, 2:5])
    torch.testing.assert_close(small[6], large[35])


def places(index: torch.Tensor, factors: tuple[int, ...]) -> np.ndarray:
    """Return the row and column of each index, [2, B, T]."""
    return np.stack(np.unravel_index(index.numpy(), factors))


def test_in_training_each_window_is_shifted_as_a_whole(offsets):
    torch.manual_seed(0)
    roles = [torch.arange(6).repeat(50, 1), torch.arange(6).flip(0).repeat(50, 1)]
    larger = 2 + 2 * MAX_SHIFT, 3 + 2 * MAX_SHIFT
    by = [
        places(shifted, larger) - places(index, (2, 3))
        for shifted, index in zip(offsets.augment(*roles), roles, strict=True)
    ]
    np.testing.assert_array_equal(*(shift[..., :1].repeat(6, 2) for shift in by))
    np.testing.assert_array_equal(by[0], by[0][..., :1].repeat(6, 2))
    assert set(by[0].flatten()) == set(range(2 * MAX_SHIFT + 1))


def test_a_flag_before_the_row_and_the_column_is_not_shifted():
    keyed, here = OffsetEncoder(Discrete(12, (2, 2, 3)), 16), torch.arange(12).repeat(50, 1)
    shifted = places(keyed.augment(here, here)[0], tuple(n + 2 * MAX_SHIFT for n in (2, 2, 3)))
    np.testing.assert_array_equal(shifted[0] - MAX_SHIFT, here // 6)


def test_a_window_that_is_not_shifted_has_the_vectors_of_an_evaluation(offsets):
    here = torch.arange(7)[None]
    still = offsets._shifted(here, torch.full((2, 1, 1), MAX_SHIFT))
    torch.testing.assert_close(offsets.table()[still[0]], offsets.eval().table())
    assert offsets.augment(here, here)[0] is here


def test_a_projected_reward_is_a_line_in_its_value_and_none_lies_off_it():
    module = RewardProjection(replace(SPEC, rewards=(), reward_range=(-1.0, 3.0)), 8)
    low, zero, high, none = module(torch.tensor([-1.0, 0.0, 3.0, NONE]))
    torch.testing.assert_close(high - zero, 3 * (zero - low))
    torch.testing.assert_close(zero, module.linear.bias)
    torch.testing.assert_close(none, module.none.weight[0])


@pytest.mark.parametrize(("name", "reward_token"), ORDERS)
@pytest.mark.parametrize("asked", [False, True])
def test_the_entries_of_a_token_are_those_whose_change_changes_it(name, reward_token, asked):
    inputs = {"return_to_go": nn.Linear(1, 64)} if asked else None
    settings = replace(CONFIG, reward_token=reward_token)
    tokenizer = TOKENIZERS.load(name)(SPEC, settings, inputs)
    window = {field: torch.tensor([values]) for field, values in WINDOW.items()}
    window |= {"return_to_go": torch.zeros(1, 5)}
    before = tokenizer(window)
    told = tokenizer.entries(4)
    assert {entry.shape for entry in told.values()} == {before.shape[:2]}
    for role, field in {"action": "action", "outcome": "reward", "decision": "time"}.items():
        for entry in range(1, 5):
            changed = {**window, field: window[field].clone()}
            changed[field][0, entry] = 0 if window[field][0, entry] != 0 else 1
            differs = (tokenizer(changed) != before).any(-1)
            assert torch.equal(differs, told[role] == entry), (role, entry)


@pytest.mark.parametrize(("name", "reward_token"), ORDERS)
def test_the_observation_of_a_decision_is_in_the_token_that_predicts_its_action(name, reward_token):
    tokenizer = TOKENIZERS.load(name)(SPEC, replace(CONFIG, reward_token=reward_token))
    entries = tokenizer.entries(4)["observation"]
    at_decisions = tokenizer.at_decisions(entries[..., None].expand(-1, -1, 2))
    assert at_decisions[0, :, 0].tolist() == [1, 2, 3, 4]
    assert sorted(entries[entries >= 0].tolist()) == [1, 2, 3, 4]
