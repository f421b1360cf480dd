"""The compiled decoder of rollouts against the plain transformer."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from numba import njit
from processes import ROOT, compiled_and_loaded

from ad.models.kernels import functions
from ad.models.kernels import inference_loops as decoder_kernel
from ad.models.kernels import training_loops as training_kernel
from ad.models.kernels.bf16 import from_bf16
from ad.models.kernels.inference import CompiledDecoder
from ad.models.kernels.llvm import LANES
from ad.models.kernels.simd import load, store
from ad.models.kernels.transformer import CompiledTransformer
from ad.models.kv_cache import KVCache
from ad.runtime.devices import torch_threads

KERNELS = ROOT / "ad" / "models" / "kernels"
TRAINING = ["functions", "attention_loops", "layer_loops", "gemm"]
# C, layers, H, F
SHAPES = [(16, 2, 2, 32), (32, 3, 1, 20), (64, 4, 2, 256), (24, 1, 6, 48), (60, 1, 3, 33)]


class Rounded(KVCache):
    """A cache that keeps what a decoder keeps: bfloat16 keys and values."""

    def append(self, layer, keys, values):
        return super().append(layer, *(x.bfloat16().float() for x in (keys, values)))


def transformer(width=16, layers=2, heads=2, feed_forward=32, seed=0):
    """Return a transformer whose biases and norms are not zeros and ones."""
    torch.manual_seed(seed)
    model = CompiledTransformer(width, layers, heads, feed_forward).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter += 0.3 * torch.randn_like(parameter) / parameter.shape[-1] ** 0.5
    return model


def plain_cache(model, num_envs: int, capacity: int) -> KVCache:
    heads = model.heads
    like, head_width = model.norm.weight, model.width // heads
    return Rounded(len(model.blocks), num_envs, heads, capacity, head_width, like)


def random_tokens(num_envs: int, count: int, width: int = 16, seed: int = 1) -> torch.Tensor:
    return torch.randn(num_envs, count, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("num_envs", [1, 3, 8, 21])
def test_hidden_states_are_those_of_the_plain_transformer(shape, num_envs):
    model, counts = transformer(*shape), (1, 1, 3, 40, 1, 5)
    cache, plain = model.new_cache(num_envs, 51), plain_cache(model, num_envs, 51)
    assert isinstance(cache, CompiledDecoder)
    for start, count in zip(np.cumsum((0, *counts)), counts, strict=False):
        tokens = random_tokens(num_envs, count, shape[0], seed=int(start))
        expected = model(tokens, plain)[:, -1:]
        # What differs in the last bit may be rounded to another bfloat16.
        torch.testing.assert_close(model(tokens, cache), expected, atol=2e-3, rtol=0)
    assert cache.length == plain.length == 51


def test_rounded_keys_and_values_move_the_hidden_states_by_little():
    model, tokens = transformer(64, 4, 2, 256), random_tokens(5, 60, 64)
    exact = model(tokens)[:, -1:]
    error = (model(tokens, model.new_cache(5, 60)) - exact).abs().max() / exact.std()
    assert 0 < error < 0.02


def test_tokens_one_by_one_are_read_as_tokens_together():
    model, tokens = transformer(), random_tokens(9, 70)
    together, alone = (model.new_cache(9, 70) for _ in range(2))
    for token in range(70):
        last = model(tokens[:, token : token + 1], alone)
    torch.testing.assert_close(model(tokens, together), last, atol=1e-5, rtol=0)
    np.testing.assert_array_equal(together.keys, alone.keys)
    np.testing.assert_array_equal(together.values, alone.values)


def test_neither_the_number_of_threads_nor_the_other_environments_change_a_bit():
    model, tokens = transformer(64, 4, 2, 256), random_tokens(205, 30, 64)
    results = []
    for threads, num_envs in ((1, 205), *[(4, 205)] * 5, (1, 4)):
        with torch_threads(threads):
            cache = model.new_cache(num_envs, 30)  # with as many as torch has now
        told = (tokens[:num_envs, :25], *tokens[:num_envs, 25:].split(1, 1))
        results.append(torch.stack([model(part, cache) for part in told]))
    for other in results[1:]:
        num_envs = other.shape[1]
        torch.testing.assert_close(other, results[0][:, :num_envs], atol=0, rtol=0)


def test_torch_has_its_threads_back_after_a_decision_and_after_an_error():
    model = transformer()
    with torch_threads(3):
        with model.inference_context():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 3
        with pytest.raises(ZeroDivisionError), model.inference_context():
            1 / 0  # noqa: B018
        assert torch.get_num_threads() == 3


READ = """
import sys, torch
from ad.models.kernels.transformer import CompiledTransformer
torch.manual_seed(0)
model = CompiledTransformer(64, 2, 2, 256).requires_grad_(False)
cache, tokens = model.new_cache(9, 50), torch.randn(9, 50, 64)
for part in (tokens[:, :40], tokens[:, 40:43], *tokens[:, 43:].split(1, 1)):
    sys.stdout.buffer.write(model(part, cache).numpy().tobytes())
"""


@pytest.mark.slow
def test_a_process_that_compiles_and_one_that_loads_the_cache_have_the_same_bits(tmp_path):
    first, second = compiled_and_loaded(READ, tmp_path)
    assert first and first == second


def test_selected_environments_keep_what_they_have_read():
    model, tokens = transformer(), random_tokens(6, 5)
    left, stay = model.new_cache(6, 5), torch.tensor([4, 1, 1])  # an index may repeat
    model(tokens[:, :4], left)
    left.select(stay)
    apart = model.new_cache(3, 5)
    model(tokens[stay, :4], apart)
    expected = model(tokens[stay, 4:], apart)
    torch.testing.assert_close(model(tokens[stay, 4:], left), expected, atol=0, rtol=0)


def test_a_decoder_can_be_reset_and_takes_no_more_tokens_than_its_capacity():
    model, tokens = transformer(), random_tokens(3, 40)
    cache = model.new_cache(3, 40)
    first = model(tokens, cache)
    with pytest.raises(AssertionError):
        model(tokens[:, :1], cache)
    cache.reset()
    torch.testing.assert_close(model(tokens, cache), first, atol=0, rtol=0)
    cache.reset()
    torch.testing.assert_close(
        model(tokens[:, :7], cache), model(tokens[:, :7], model.new_cache(3, 7)), atol=0, rtol=0
    )


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_what_is_not_a_number_shows_in_its_environment_and_in_no_other(wrong):
    model, tokens = transformer(), random_tokens(10, 4)
    tokens[3, 1, 5] = wrong
    cache, clean = model.new_cache(10, 4), model.new_cache(10, 4)
    model(tokens[:, :2], cache), model(random_tokens(10, 4)[:, :2], clean)
    for token in (2, 3):
        broken, whole = (model(tokens[:, token : token + 1], c) for c in (cache, clean))
        assert not broken[3].isfinite().any()
        others = [env for env in range(10) if env != 3]
        torch.testing.assert_close(broken[others], whole[others], atol=0, rtol=0)


def test_weights_that_are_not_numbers_show():
    model = transformer()
    model.blocks[1].up.weight[3, 2] = float("nan")
    assert not model(random_tokens(2, 1), model.new_cache(2, 1)).isfinite().any()


@pytest.mark.parametrize(
    ("model", "is_compiled"),
    [(transformer(), True), (transformer().double(), False), (transformer().to("meta"), False)],
)
def test_only_float32_on_a_cpu_is_decoded_in_compiled_loops(model, is_compiled):
    assert isinstance(model.new_cache(2, 3), CompiledDecoder) == is_compiled


@pytest.mark.parametrize(
    ("loops", "names"),
    [
        (decoder_kernel, ["functions", "bf16", "simd", "llvm"]),
        (training_kernel, [*TRAINING, "bf16", "simd", "llvm"]),
    ],
)
def test_a_change_of_what_loops_are_compiled_from_compiles_them_anew(loops, names):
    digest = hashlib.sha256(b"".join((KERNELS / f"{name}.py").read_bytes() for name in names))
    assert digest.hexdigest()[:8] == loops.COMPILED_FROM


HALVES = """
import sys
import numpy as np
from numba import njit
from ad.models.kernels.bf16 import to_bf16

@njit
def halves(numbers):
    return [to_bf16(number) for number in numbers]

numbers = np.frombuffer(bytes.fromhex(sys.stdin.read()), np.float32)
print(np.array(halves(numbers), np.uint16).tobytes().hex())
"""


@pytest.mark.parametrize("processor", ["this one", "generic"])
def test_bfloat16_is_that_of_torch(processor):
    numbers = torch.cat([torch.randn(5000), torch.tensor([0.0, -0.0, 1e-30, 3e38, 1 + 2**-8])])
    numbers = torch.cat([numbers, 1 + 3 * 2.0**-8 * torch.ones(1)])  # half way, up to the even one
    numbers = torch.cat([numbers, torch.tensor([float("inf"), -float("inf")])])
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    if processor != "this one":
        env |= {"NUMBA_CPU_NAME": processor}
    nans = np.array([0x7FC00000, 0x7FFFFFFF, 0x7F800001, -1, -0x400000], np.int64).astype(np.int32)
    told = np.concatenate([numbers.numpy(), nans.view(np.float32)]).tobytes().hex()
    command = [sys.executable, "-c", HALVES]
    out = subprocess.run(command, input=told, env=env, capture_output=True, text=True, check=True)
    halves, rest = np.split(np.frombuffer(bytes.fromhex(out.stdout), np.uint16), [len(numbers)])
    np.testing.assert_array_equal(halves, numbers.bfloat16().view(torch.uint16).numpy())
    widened = njit(lambda half: from_bf16(half))
    assert all(np.isnan(widened(half)) for half in rest)
    assert len(rest) == len(nans)
    back = np.array([widened(half) for half in halves], np.float32)
    np.testing.assert_array_equal(back, numbers.bfloat16().float().numpy())


@njit
def of_each(function, numbers):
    result = np.empty_like(numbers)
    for i in range(0, numbers.size, LANES):
        store(result, i, function(load(numbers, i)))
    return result


def of_all(function, numbers: np.ndarray) -> np.ndarray:
    whole = np.pad(numbers.astype(np.float32), (0, -numbers.size % LANES))
    return of_each(function, whole)[: numbers.size]


def test_gelu_and_its_derivative_are_those_of_torch():
    x = torch.cat([torch.linspace(-30, 30, 20_001), torch.tensor([-1e30, 1e30])]).requires_grad_()
    exact = torch.nn.functional.gelu(x)
    (derivative,) = torch.autograd.grad(exact.sum(), x)
    for part, expected, atol, rtol in (
        (functions.gelu, exact, 2e-6, 1e-6),
        (functions.gelu_poly, exact, 1e-4, 4e-5),
        (value_of_both, exact, 1e-4, 4e-5),
        (derivative_of_both, derivative, 3e-4, 0),
    ):
        ours = torch.from_numpy(of_all(part, x.detach().numpy()))
        torch.testing.assert_close(ours, expected.detach(), atol=atol, rtol=rtol)
        assert np.isnan(of_all(part, np.array([np.nan]))).all()


@njit
def value_of_both(x):
    return functions.gelu_poly_and_derivative(x)[0]


@njit
def derivative_of_both(x):
    return functions.gelu_poly_and_derivative(x)[1]


def test_powers_of_two_are_right_to_seven_digits_down_to_the_smallest():
    x = np.concatenate([np.linspace(-126, 0, 10_001), -np.geomspace(1e-9, 1, 1000)])
    ours = of_all(functions.exp2, x)
    np.testing.assert_allclose(ours, np.exp2(x.astype(np.float32)), rtol=1e-6)
    small = of_all(functions.exp2, np.array([-1e30, -np.inf]))
    np.testing.assert_allclose(small, 2.0**-126, rtol=1e-6)
