"""The encoders of pictures: of MiniGrid's cells, and of pixels."""

import numpy as np
import pytest
import torch

from ad.models.encoders.pictures import one_hot, place_sinusoids
from ad.registry import ENCODERS
from envs.minigrid.encoding import SIZES, WORDS, word_numbers
from envs.spaces import Array, Discrete

CELLS = Array((7, 7, 3), "uint8", 0.0, 10.0)  # as envs.minigrid declares a partial view
MISSION = Array((12,), "uint8", 0.0, float(len(WORDS)))
PIXELS = Array((28, 30, 3), "uint8", 0.0, 255.0)
OF_CELLS = ("one_hot", "index", "bag_of_words", "patches", "cnn", "vit")


def cells(*shape: int, seed: int = 0) -> torch.Tensor:
    """Return random cells [*shape, 7, 7, 3]."""
    rng = np.random.default_rng(seed)
    words = [rng.integers(size, size=(*shape, 7, 7)) for size in SIZES]
    return torch.from_numpy(np.stack(words, -1).astype(np.uint8))


def encoder(name: str, part=CELLS, width: int = 16):
    torch.manual_seed(0)
    return ENCODERS.load(name)(part, width)


def test_each_encoder_supports_the_parts_that_it_can_encode():
    parts = {
        "cells": CELLS,
        "small": Array((9, 9, 3), "uint8", 0.0, 10.0),
        "wide, bounded": Array((40, 40, 3), "int64", 0.0, 10.0),
        "pixels": PIXELS,
        "few pixels": Array((20, 20, 3), "uint8", 0.0, 255.0),
        "gray": Array((84, 84, 1), "uint8", 0.0, 255.0),
        "one-hot": Array((7, 7, 20), "uint8", 0.0, 1.0),
        "numbers": Array((4,), "float32", None, None),
        "floats": Array((7, 7, 3), "float32", 0.0, 1.0),
        "scalar": Array((), "float32", None, None),
        "index": Discrete(9, (3, 3)),
        "mission": MISSION,
    }
    of_cells = {"cells", "small", "wide, bounded"}
    pictures = of_cells | {"pixels", "few pixels", "gray", "one-hot"}
    expected = {
        "one_hot": of_cells,
        "bag_of_words": of_cells,
        "patches": pictures,
        "cnn": pictures,
        "vit": pictures,
        "index": set(parts) - {"scalar", "index"},
        "mlp": set(parts) - {"index"},
        "words": {"mission"},
    }
    for name, fitting in expected.items():
        supports = ENCODERS.load(name).supports
        assert {what for what, part in parts.items() if supports(part)} == fitting, name


@pytest.mark.parametrize("name", OF_CELLS)
@pytest.mark.parametrize("width", [6, 16, 64])
def test_pictures_of_any_leading_shape_become_vectors_and_every_parameter_learns(name, width):
    module, pictures = encoder(name, width=width), cells(3, 5)
    vectors = module(pictures)
    assert vectors.shape == (3, 5, width) and vectors.isfinite().all()
    torch.testing.assert_close(vectors[1, 2], module(pictures[1, 2]), atol=1e-5, rtol=1e-4)
    vectors.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in module.parameters())


@pytest.mark.parametrize("name", ["patches", "cnn", "vit", "index"])
@pytest.mark.parametrize("shape", [(28, 30, 3), (84, 84, 1), (26, 3, 4), (30, 2, 3)])
def test_pictures_of_pixels_become_vectors(name, shape):
    module = encoder(name, Array(shape, "uint8", 0.0, 255.0))
    picture = torch.randint(256, (2, *shape), dtype=torch.uint8)
    assert module(picture).shape == (2, 16)
    assert not torch.equal(module(picture), module(255 - picture))


def test_a_one_hot_vector_says_object_color_and_state():
    cell = torch.tensor([[10, 5, 2], [0, 0, 0], [1, 255, 3]], dtype=torch.uint8)
    ones = [row.nonzero().flatten().tolist() for row in one_hot(cell, torch.float32)]
    assert ones == [[10, 16, 19], [0, 11, 17], [1]]  # what is no word has no vector


def test_a_one_hot_linear_map_is_the_product_of_an_explicit_one_hot_matrix():
    module, pictures = encoder("one_hot"), cells(4)
    matrix = np.zeros((4, 7, 7, 20), np.float32)
    for index in np.ndindex(4, 7, 7):
        for first, word in zip((0, 11, 17), pictures[index].tolist(), strict=True):
            matrix[(*index, first + word)] = 1
    weight, bias = module.linear.weight, module.linear.bias
    expected = torch.from_numpy(matrix).flatten(1) @ weight.T + bias
    torch.testing.assert_close(module(pictures), expected)


def test_to_a_map_of_indices_one_object_is_a_multiple_of_another():
    module = encoder("index")
    empty = torch.zeros(1, 7, 7, 3, dtype=torch.uint8)
    goal, obstacle = empty.clone(), empty.clone()
    goal[0, 3, 3, 0], obstacle[0, 3, 3, 0] = 8, 6
    step = (module(picture) - module(empty) for picture in (goal, obstacle))
    torch.testing.assert_close(0.75 * next(step), next(step))


def test_missions_have_different_vectors_by_their_words_and_by_the_places_of_these():
    module = encoder("words", MISSION)
    texts = ["go to the red ball", "go to the red box", "go to the blue ball", "open the door"]
    texts += ["put the red ball next to the blue key", "put the blue key next to the red ball"]
    rows = [numbers + [0] * (12 - len(numbers)) for numbers in map(word_numbers, texts)]
    vectors = module(torch.tensor([rows] * 2, dtype=torch.uint8))  # [2, texts, width]
    assert vectors.shape == (2, 6, 16) and torch.equal(vectors[0], vectors[1])
    distance = torch.cdist(*[vectors[0].double()] * 2)
    assert (distance + distance.max() * torch.eye(6)).min() > 0.02 * distance.max()
    vectors.square().sum().backward()
    used = {number for row in rows for number in row}
    assert set(module.words.weight.grad.any(0).nonzero().flatten().tolist()) == used


@pytest.mark.parametrize("name", OF_CELLS)
def test_it_matters_where_an_object_is(name):
    module = encoder(name)
    moved = torch.ones(49, 7, 7, 3, dtype=torch.uint8)
    for place in range(49):
        moved[place, place // 7, place % 7] = torch.tensor([8, 1, 0])
    vectors = module(moved).double()
    distance = torch.cdist(*[vectors - vectors.mean(0)] * 2)
    assert (distance + distance.max() * torch.eye(49)).min() > 0.005 * distance.max()


def test_a_bag_of_words_knows_a_cell_by_its_words_and_its_place_alone():
    module = encoder("bag_of_words").requires_grad_(False)
    one, other = cells(2)
    mixed = one.clone()
    mixed[:4] = other[:4]
    rest = other.clone()
    rest[:4] = one[:4]
    torch.testing.assert_close(module(one) + module(other), module(mixed) + module(rest))


def test_places_have_different_vectors_that_change_slowly_and_only_along_their_axis():
    places = place_sinusoids(25, 25, 24)
    distance = torch.cdist(*[places.flatten(0, 1)] * 2) + torch.eye(625)
    assert distance.min() > 0.1
    assert (places[:, 0] - places[:, 9])[..., ::2].abs().max() == 0  # the half that tells the row
    assert (places[0] - places[9])[..., 1::2].abs().max() == 0
    assert place_sinusoids(3, 4, 5).shape == (3, 4, 5)
