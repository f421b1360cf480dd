"""The compiled blocks of training against autograd through the plain transformer."""

import copy
import os
import subprocess
import sys
import threading
from dataclasses import replace
from functools import partial
from itertools import chain

import numpy as np
import pytest
import torch
from numba import njit
from processes import ROOT, compiled_and_loaded
from torch.nn.functional import gelu

from ad.config.schema import ModelConfig, TrainingConfig
from ad.models.kernels import functions
from ad.models.kernels import training as compiled_blocks
from ad.models.kernels import training_loops as kernel
from ad.models.kernels.llvm import LANES
from ad.models.kernels.simd import store
from ad.models.kernels.transformer import CompiledTransformer
from ad.models.transformer import Transformer
from ad.runtime.devices import torch_threads
from ad.runtime.parallel import NUMBA_ENTRY, split_max
from ad.training.optimizer import FlatAdamW, loss_and_grad

# Windows, tokens, width, heads, feed-forward: several parts, several blocks of queries, odd sizes.
SHAPES = [
    (3, 1, 16, 2, 32),
    (5, 7, 24, 3, 40),
    (40, 64, 16, 1, 16),
    (9, 300, 32, 2, 64),
    (4, 71, 18, 9, 33),
    (15, 71, 40, 2, 300),
]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Several of them in the larger batches here."""
    monkeypatch.setattr(compiled_blocks, "CHUNK_TOKENS", 1024)


def transformer(width=16, heads=2, feed_forward=32, layers=3, seed=0, **settings):
    torch.manual_seed(seed)
    model = CompiledTransformer(width, layers, heads, feed_forward, **settings).train()
    for parameter in model.parameters():  # biases and norms too, as training leaves them
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def through(model, tokens: torch.Tensor, compiled=True, bfloat16=True) -> torch.Tensor:
    """Hidden states by the compiled blocks or the plain ones, in bfloat16 products or float32."""
    forward = model.forward if compiled else partial(Transformer.forward, model)
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        return forward(tokens)


def gradients(model, hidden: torch.Tensor, tokens: torch.Tensor) -> list[torch.Tensor]:
    torch.manual_seed(7)
    return list(
        torch.autograd.grad(hidden, [tokens, *model.parameters()], torch.randn_like(hidden))
    )


def random_tokens(windows: int, length: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(windows, length, width, generator=generator).requires_grad_()


def off(mine: torch.Tensor, exact: torch.Tensor) -> float:
    return float((mine - exact).detach().norm() / exact.detach().norm())


@pytest.mark.parametrize("shape", SHAPES)
def test_hidden_states_and_gradients_are_as_near_to_float32_as_those_of_autocast(shape):
    windows, length, width, heads, feed_forward = shape
    model, tokens = transformer(width, heads, feed_forward), random_tokens(windows, length, width)
    exact = through(model, tokens, compiled=False, bfloat16=False)
    plain = through(model, tokens, compiled=False)
    mine = through(model, tokens)
    assert off(mine, exact) < 1.2 * off(plain, exact) + 2e-3 < 0.02
    names = ["tokens", *dict(model.named_parameters())]
    found = (gradients(model, hidden, tokens) for hidden in (mine, plain, exact))
    for name, mine, plain, exact in zip(names, *found, strict=True):
        if exact.norm() > 1e-4 * len(names):  # with one token nobody asks which query found it
            assert off(mine, exact) < 1.5 * off(plain, exact) + 2e-3, name


def test_it_is_what_a_model_that_trains_in_bfloat16_runs_and_nothing_else_is():
    model, tokens = transformer(), random_tokens(2, 5, 16)
    assert "CompiledBlocksFunction" in grad_functions(through(model, tokens))
    assert "CompiledBlocksFunction" not in grad_functions(through(model, tokens, compiled=False))
    with torch.no_grad():
        assert torch.equal(through(model, tokens), through(model, tokens, compiled=False))


def grad_functions(hidden: torch.Tensor) -> str:
    return str([hidden.grad_fn, *(f for f, _ in hidden.grad_fn.next_functions)])


@pytest.mark.parametrize(
    ("settings", "supported"),
    [
        ({}, True),
        ({"dropout": 0.1, "attention_dropout": 0.5}, True),
        ({"feed_forward": 31}, True),
        ({"width": 12, "heads": 2}, True),  # heads of six
        ({"position": "rotary"}, False),
        ({"tokenizer": "modal"}, False),
        ({"tokenizer": "separate"}, True),
        ({"width": 9, "heads": 3}, False),
    ],
)
def test_it_supports_blocks_without_rotation_or_streams_and_heads_of_an_even_width(
    settings, supported
):
    config = replace(ModelConfig(), **settings)
    assert CompiledTransformer.supports(config, torch.device("cpu")) == supported
    assert not CompiledTransformer.supports(config, torch.device("cuda"))


def test_only_a_gradient_in_bfloat16_of_float32_on_a_cpu_takes_the_compiled_blocks():
    model, tokens = transformer(), random_tokens(3, 5, 16)

    def is_compiled(tokens, model=model):
        return "CompiledBlocksFunction" in str(model(tokens).grad_fn)

    assert not is_compiled(tokens)
    with torch.autocast("cpu", torch.float16):
        assert not is_compiled(tokens)
    with torch.autocast("cpu", torch.bfloat16):
        assert is_compiled(tokens)
        with torch.inference_mode():
            assert not is_compiled(tokens)
        assert not is_compiled(tokens.to("meta"), copy.deepcopy(model).to("meta"))
    doubled = copy.deepcopy(model).double()
    assert not is_compiled(tokens.double(), doubled)


@njit(**NUMBA_ENTRY | {"cache": False})
def fill_factors(dropout, first, result):
    for i in range(0, result.size, LANES):
        store(result, i, functions.dropout_scale(dropout, first + i))


def dropout_of(drops: kernel.DropoutKeys, layer: int, which: int) -> functions.Dropout:
    return functions.Dropout(*drops.keys[layer, which], drops.threshold[which], drops.scale[which])


def row_factors(dropout: functions.Dropout, rows: int, size: int, row_stride: int) -> torch.Tensor:
    """Return the factors of dropout, 0 or 1 / (1 - p), of an array [`rows`, `size`]."""
    result = np.empty((rows, size + -size % LANES), np.float32)
    for number, row in enumerate(result):
        fill_factors(dropout, number * row_stride, row)
    return torch.from_numpy(result[:, :size])


def addition_factors(dropout: functions.Dropout, rows: int, width: int) -> torch.Tensor:
    """Return the factors of an addition to the residual stream, [N, C], whose rows are padded."""
    return row_factors(dropout, rows, width, width + -width % LANES)


def weight_factors(dropout: functions.Dropout, groups: int, length: int) -> torch.Tensor:
    """Return the factors of attention weights [groups, queries, keys], which are stored by key."""
    return row_factors(dropout, groups * length, length, length).view(groups, length, length).mT


def with_masks(model, tokens: torch.Tensor, drops: kernel.DropoutKeys) -> torch.Tensor:
    """Run the blocks in float32 as plain operations with the dropout masks of a chunk."""
    (windows, length, width), heads = tokens.shape, model.heads
    x, rows = tokens, windows * length
    for layer, block in enumerate(model.blocks):
        of_weights, of_attention, of_mlp = (dropout_of(drops, layer, which) for which in range(3))
        qkv = block.attention.qkv(block.norm_attention(x))
        q, k, v = qkv.view(windows, length, 3, heads, -1).permute(2, 0, 3, 1, 4)
        weights = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        weights = weights.masked_fill(~causal, float("-inf")).softmax(-1)
        out = (weights * weight_factors(of_weights, windows * heads, length).view_as(weights)) @ v
        change = block.attention.out(out.transpose(1, 2).reshape(x.shape))
        x = x + change * addition_factors(of_attention, rows, width).view_as(x)
        change = block.down(gelu(block.up(block.norm_mlp(x))))
        x = x + change * addition_factors(of_mlp, rows, width).view_as(x)
    return model.norm(x)


def chunks_of(hidden: torch.Tensor) -> list:
    """Return the chunks, of all threads, of the batch whose hidden states are `hidden`."""
    return list(chain(*hidden.grad_fn.chunks))


def test_a_mean_far_from_its_deviation_is_taken_off_whatever_the_width():
    model, tokens = transformer(width=20), random_tokens(3, 20, 20)
    far = (30 + 0.01 * tokens).detach().requires_grad_()
    exact = through(model, far, compiled=False, bfloat16=False)
    assert off(through(model, far), exact) < 0.02


@pytest.mark.parametrize(("additions", "weights"), [(0.2, 0.4), (0.2, 0.0), (0.0, 0.4)])
@pytest.mark.parametrize("shape", [(3, 150, 16), (5, 31, 20)])
def test_dropout_masks_are_the_same_in_both_directions(shape, additions, weights):
    settings = {"dropout": additions, "attention_dropout": weights, "width": shape[2]}
    model, tokens = transformer(**settings), random_tokens(*shape)
    mine = through(model, tokens)
    (chunk,) = chunks_of(mine)
    exact = with_masks(model, tokens, chunk.dropout_keys)
    assert off(mine, exact) < 0.02
    found = (gradients(model, hidden, tokens) for hidden in (mine, exact))
    names = ["tokens", *dict(model.named_parameters())]
    for name, mine, exact in zip(names, *found, strict=True):
        # A softmax cannot tell whether all its scores are larger: nothing depends on that bias.
        assert off(mine, exact) < 0.03 or name.endswith("qkv.bias"), name


def test_dropout_drops_its_share_and_keeps_the_mean():
    for probability in (0.1, 0.5):
        dropout = functions.Dropout(
            *(np.uint32(word) for word in (12345, 67890, round(probability * 2**32))),
            np.float32(1 / (1 - probability)),
        )
        factors = addition_factors(dropout, 2000, 64)
        assert factors.mean() == pytest.approx(1, abs=0.02)
        assert (factors == 0).float().mean() == pytest.approx(probability, abs=0.01)
        for lag in (1, 2, 64, 65):  # what is next to it, in its row and in its column
            flat = factors.flatten()
            assert abs(np.corrcoef(flat[lag:], flat[:-lag])[0, 1]) < 0.01


def test_masks_differ_between_blocks_places_chunks_and_passes():
    model, tokens = transformer(dropout=0.5, attention_dropout=0.5), random_tokens(40, 100, 16)
    keys = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        hidden = through(model, tokens)
        for chunk in chunks_of(hidden):
            keys += [tuple(key) for key in chunk.dropout_keys.keys.reshape(-1, 2)]
    assert len(set(keys)) == len(keys) >= 2 * 2 * 3 * 3


def test_a_seed_decides_the_masks_and_an_evaluated_model_has_none():
    model, tokens = transformer(dropout=0.5, attention_dropout=0.5), random_tokens(4, 20, 16)

    def seen(seed):
        torch.manual_seed(seed)
        return through(model, tokens)

    assert torch.equal(seen(1), seen(1)) and not torch.equal(seen(1), seen(2))
    model.eval()
    assert torch.equal(seen(1), seen(2))
    assert off(seen(1), through(model, tokens, compiled=False, bfloat16=False)) < 0.02


def free_workspaces(model: Transformer) -> int:
    return sum(map(len, model.compiled_blocks.free.values()))


def test_two_passes_before_a_backward_one_do_not_share_memory():
    model, tokens = transformer(), random_tokens(4, 20, 16)
    alone = gradients(model, through(model, tokens), tokens)
    assert free_workspaces(model) == 1
    first, second = through(model, tokens), through(model, 2 * tokens)
    assert free_workspaces(model) == 0
    for mine, expected in zip(gradients(model, first, tokens), alone, strict=True):
        assert torch.equal(mine, expected)
    ours = second.grad_fn
    assert ours.chunks
    second.sum().backward()
    assert free_workspaces(model) == 2
    assert ours.chunks is None  # the memory is the next one's
    copied = copy.deepcopy(model)
    assert free_workspaces(copied) == 0
    for mine, expected in zip(
        gradients(copied, through(copied, tokens), tokens), alone, strict=True
    ):
        assert torch.equal(mine, expected)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_what_is_not_a_number_shows_in_its_window_and_in_all_gradients(wrong):
    model, tokens = transformer(), random_tokens(5, 20, 16)
    with torch.no_grad():
        tokens[3, 4] = wrong
    hidden = through(model, tokens)
    assert hidden[3, 4:].isnan().all()
    assert hidden[[0, 1, 2, 4]].isfinite().all()
    of_tokens, *of_weights = gradients(model, hidden, tokens)
    assert of_tokens[3].isnan().any() and of_tokens[[0, 1, 2, 4]].isfinite().all()
    *of_weights, _ = of_weights  # nothing that the model sees moves that of the last bias
    assert all(gradient.isnan().any() for gradient in of_weights)


def slices(count: int, most: int) -> list[slice]:
    return [slice(start, stop) for start, stop in split_max(count, most)]


def loss_of(model, tokens: torch.Tensor):
    def loss(part: slice) -> torch.Tensor:
        torch.manual_seed(part.start)
        with torch.autocast("cpu", torch.bfloat16):
            return (model(tokens[part].detach()) ** 2).sum() / len(tokens)

    return loss


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_threads_find_the_gradient_of_the_whole_batch(threads):
    found = []
    for count in (1, threads):
        with torch_threads(count):
            model, tokens = transformer(), random_tokens(10, 30, 16)
        model.unread = torch.nn.Parameter(torch.ones(3))  # of no loss
        optimizer = FlatAdamW(model, TrainingConfig())
        total, rows = loss_and_grad(optimizer, loss_of(model, tokens), slices(len(tokens), 5))
        found.append([total, *rows])
    for one, other in zip(*found, strict=True):
        assert off(other, one) < 1e-5
    place = [parameter is model.unread for parameter in optimizer.parameters].index(True)
    told = gradients_of(optimizer, rows)
    assert [not part.any() for part in told] == [i == place for i in range(len(told))]


def gradients_of(optimizer: FlatAdamW, rows: list[torch.Tensor]) -> list[torch.Tensor]:
    """By parameter."""
    numbers = torch.cat(rows)
    return list(numbers.split([parameter.numel() for parameter in optimizer.parameters]))


def test_every_thread_has_windows_of_its_own_and_as_many_parts():
    for windows, length, threads in ((1, 10, 4), (7, 500, 2), (40, 100, 3), (3, 9000, 2)):
        split = compiled_blocks._split(windows, length, threads)
        assert [start for start, _ in split] == [0, *(stop for _, stop in split[:-1])]
        assert split[-1][1] == windows and all(start < stop for start, stop in split)
        assert len(split) % threads == 0 or len(split) == windows
        most = 2 * compiled_blocks.CHUNK_TOKENS
        assert len(split) == windows or all((b - a) * length < most for a, b in split[:-1])


def test_the_same_number_of_threads_gives_the_same_bits():
    with torch_threads(2):
        model, tokens = transformer(attention_dropout=0.3), random_tokens(9, 30, 16)
    optimizer, seen = FlatAdamW(model, TrainingConfig()), []
    for _ in range(3):
        _, rows = loss_and_grad(optimizer, loss_of(model, tokens), slices(9, 2))
        seen.append(b"".join(row.numpy().tobytes() for row in rows))
    assert len(set(seen)) == 1


def test_an_error_in_a_thread_is_heard(monkeypatch):
    def fail(*given):
        if threading.current_thread() is not threading.main_thread():
            raise ArithmeticError("of a part")

    with torch_threads(2):
        model, tokens = transformer(), random_tokens(4, 3, 16)
    monkeypatch.setattr(kernel, "forward", fail)
    with pytest.raises(ArithmeticError, match="of a part"):
        through(model, tokens)


BITS = """
import sys
sys.path.insert(0, "tests")
import torch
from test_compiled_blocks import gradients, random_tokens, through, transformer
torch.set_num_threads(1)
model, tokens = transformer(dropout=0.1, attention_dropout=0.1), random_tokens(3, 140, 16)
hidden = through(model, tokens)
for part in (hidden.detach(), *gradients(model, hidden, tokens)):
    print(part.numpy().tobytes().hex())
"""


@pytest.mark.slow
def test_a_process_that_compiles_and_one_that_loads_the_cache_have_the_same_bits(tmp_path):
    first, second = compiled_and_loaded(BITS, tmp_path)
    assert first == second and len(first) > 1000


@pytest.mark.slow
def test_a_processor_without_bfloat16_comes_to_nearly_the_same(tmp_path):
    found = []
    for name in (None, "generic"):
        env = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / str(name)), "PYTHONPATH": str(ROOT)}
        if name:
            env |= {"NUMBA_CPU_NAME": name}
        out = subprocess.check_output([sys.executable, "-c", BITS], env=env, cwd=ROOT, text=True)
        parts = (np.frombuffer(bytes.fromhex(line), np.float32) for line in out.split())
        found.append([torch.from_numpy(part.copy()) for part in parts])
    for one, other in zip(*found, strict=True):
        assert off(one, other) < 0.01 or other.norm() < 1e-3 * len(other)
