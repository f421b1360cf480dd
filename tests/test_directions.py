"""Directions: their names, what they weigh, and names that are refused."""

from types import SimpleNamespace

import pytest

from ad.errors import ConfigError
from ad.interpret.directions import direction_names, parse_direction

NAMES = ("turn left", "turn right", "forward", "pick up")


def test_every_listed_direction_weighs_its_actions():
    names = direction_names(SimpleNamespace(action_names=NAMES), 3)
    pairs = ["turn right - turn left", "forward - turn left", "forward - turn right"]
    assert names == [*NAMES[:3], *pairs]
    weights = {name: parse_direction(name, NAMES, 3).tolist() for name in names}
    assert weights["forward"] == [-0.5, -0.5, 1]
    assert weights["forward - turn left"] == [-1, 0, 1]
    assert all(sum(weight) == 0 for weight in weights.values())
    assert len(direction_names(None, 11)) == 11  # whose 55 pairs are too many to list


@pytest.mark.parametrize("name", ["forward - right", "2 - 1", " forward -  turn right "])
def test_actions_are_called_by_name_last_word_or_number(name):
    assert parse_direction(name, NAMES, 3).tolist() == [0, -1, 1]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("forwart", "there is no action 'forwart': .* did you mean forward"),
        ("pick up", "the actions are turn left, turn right, forward"),
        ("forward - 2", "against itself"),
        ("3", "no action"),
        ("", "no action"),
        ("forward - right - left", "no action"),
    ],
)
def test_a_direction_of_unknown_actions_is_refused(name, reason):
    with pytest.raises(ConfigError, match=reason):
        parse_direction(name, NAMES, 3)
