"""The model as a function: causal, moved by the past, and the same with a cache as without."""

import itertools
from dataclasses import replace

import pytest
import torch

from ad.config.schema import ModelConfig
from ad.methods.context_memory import ContextMemory
from ad.models.attention import CrossStreamAttention, attend
from ad.models.kv_cache import KVCache
from ad.models.positions.rotary import Rotary
from ad.models.sequence_model import SequenceModel
from ad.models.transformer import Transformer
from ad.registry import BACKENDS, ENCODERS, POSITIONS, REWARDS, TOKENIZERS

CONFIG = ModelConfig(width=16, layers=2, heads=2, feed_forward=32, positions=40)
OUTCOMES = ("action", "reward", "next_observation")  # known only after the decision
PRESENT = ("observation", "time")  # what a memory is told for a decision; it counts the steps
# Which field of a window each position reads; the others read none.
READ = {"env_time": "time", "history": "step"}

VARIANTS = [
    *(
        {"tokenizer": tokenizer, "encoder": encoder}
        for tokenizer in TOKENIZERS
        for encoder in ENCODERS
    ),
    *({"tokenizer": tokenizer, "position": name} for tokenizer in TOKENIZERS for name in POSITIONS),
    *({"tokenizer": tokenizer, "reward": reward} for tokenizer in TOKENIZERS for reward in REWARDS),
    *({"tokenizer": "separate", "reward_token": "before", "position": name} for name in POSITIONS),
]


def is_compiled(variant: dict[str, str]) -> bool:
    config = replace(CONFIG, **variant)
    return BACKENDS.load("compiled").supports(config, torch.device("cpu"))


def words(variant: dict[str, str]) -> str:
    return " ".join(variant.values())


@pytest.fixture(params=VARIANTS, ids=words)
def config(request) -> ModelConfig:
    """A small model of every kind that settings of the model choose between."""
    return replace(CONFIG, **request.param)


@pytest.fixture
def known(config) -> list[str]:
    """The fields of a window that are known at a decision and read by the model."""
    field = READ.get(config.position)
    return ["observation", field] if field else ["observation"]


@pytest.fixture
def model(spec, config) -> SequenceModel:
    """A random model, with logits of a visible size."""
    return random_model(spec, config)


def random_model(spec, config, backend="torch") -> SequenceModel:
    torch.manual_seed(0)
    module = SequenceModel(spec, config, backend).eval()
    torch.nn.init.normal_(module.head.weight)
    return module.requires_grad_(False)


def queries(*shape: int, dtype=torch.float32) -> list[torch.Tensor]:
    """Random q, k and v of that shape."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for _ in range(3)]


def attention_by_hand(q, k, v):
    """The definition, with a mask that ends at each query's own place."""
    new, total = q.shape[2], k.shape[2]
    scores = q @ k.transpose(-1, -2) / q.shape[3] ** 0.5
    hidden = torch.arange(total) > torch.arange(total - new, total)[:, None]
    return scores.masked_fill(hidden, float("-inf")).softmax(-1) @ v


@pytest.mark.parametrize(("new", "total"), [(1, 1), (5, 5), (1, 7), (3, 7)])
def test_attention_is_the_definition(new, total):
    q, k, v = queries(2, 3, total, 4)
    q = q[:, :, total - new :]
    torch.testing.assert_close(attend(q, k, v), attention_by_hand(q, k, v))


def test_attention_drops_its_share_and_keeps_the_mean():
    q, k, v = (tensor.detach() for tensor in queries(1, 1, 6, 4))
    torch.manual_seed(0)
    mean = sum(attend(q, k, v, 0.3) for _ in range(3000)) / 3000
    torch.testing.assert_close(mean, attend(q, k, v), atol=0.06, rtol=0)


def changed(window, spec, entry: int, names) -> dict[str, torch.Tensor]:
    """`window` with another value of the fields `names` at `entry`, all lanes."""
    other = {name: values.clone() for name, values in window.items()}
    sizes = spec.padding_index | {"time": spec.episode_length, "step": CONFIG.positions}
    for name in names:
        other[name][:, entry] = (other[name][:, entry] + 1) % sizes[name]
    return other


def test_a_later_change_leaves_earlier_logits_as_they_are(model, spec, random_window, known):
    window = random_window(3, 7, seed=0)
    before = model(window)
    for entry in range(1, 8):
        after = model(changed(window, spec, entry, (*known, *OUTCOMES)))
        torch.testing.assert_close(after[:, : entry - 1], before[:, : entry - 1], atol=1e-6, rtol=0)


def test_what_comes_of_a_decision_leaves_its_own_logits_as_they_are(model, spec, random_window):
    window = random_window(3, 7, seed=1)
    before = model(window)
    for entry in range(1, 8):
        after = model(changed(window, spec, entry, OUTCOMES))
        torch.testing.assert_close(after[:, :entry], before[:, :entry], atol=1e-6, rtol=0)


def test_a_change_of_any_past_field_changes_all_later_logits(model, spec, random_window, known):
    window = random_window(3, 7, seed=2)
    before = model(window)
    for name in (*known, *OUTCOMES):
        for entry in range(1, 7):
            difference = (model(changed(window, spec, entry, [name])) - before).abs()
            assert (difference[:, entry:].amax(-1) > 1e-4).all(), f"{name}, entry {entry}"


def test_a_change_of_the_present_changes_its_logits(model, spec, random_window, known):
    window = random_window(3, 4, seed=3)
    for name in known:
        difference = (model(changed(window, spec, 4, [name])) - model(window)).abs()
        assert (difference[:, -1].amax(-1) > 1e-4).all(), name


@pytest.mark.parametrize("position", POSITIONS)
def test_a_position_reads_its_own_field_and_no_other(spec, random_window, position):
    model = random_model(spec, replace(CONFIG, position=position))
    window = random_window(2, 6, seed=8)
    for name in ("time", "step"):
        other = changed(window, spec, 3, [name])
        assert torch.equal(model(window), model(other)) == (READ.get(position) != name), name


@pytest.mark.parametrize("position", POSITIONS)
def test_where_a_window_was_cut_from_a_history_matters_only_to_the_index_in_it(
    spec, random_window, position
):
    model = random_model(spec, replace(CONFIG, position=position))
    window = random_window(2, 6, seed=9)
    later = window | {"step": window["step"] + 10}
    assert torch.equal(model(window), model(later)) == (position != "history")


def test_what_a_phase_has_more_than_the_table_reads_the_last_position(spec, random_window):
    model = random_model(spec, replace(CONFIG, position="history"))
    window = random_window(2, 6, seed=9)
    windows = [window | {"step": window["step"] + more} for more in (39, 1000)]
    torch.testing.assert_close(*(model(one)[:, 1:] for one in windows))


@pytest.mark.parametrize(("position", "seen"), [("none", False), ("rotary", True)])
def test_only_a_position_tells_one_block_the_order_of_the_past(position, seen):
    rotate = POSITIONS.load(position).rotate
    transformer = Transformer(8, 1, 2, 16, rotate=rotate).eval()
    tokens = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(3))
    last, swapped = (transformer(t)[:, -1] for t in (tokens, tokens[:, [0, 3, 2, 1, 4]]))
    assert torch.allclose(last, swapped, atol=1e-5) != seen


def test_rotary_products_depend_on_how_far_two_tokens_are_apart():
    q, k, _ = queries(2, 3, 7, 8)
    here, there = (Rotary.rotate(q, s) @ Rotary.rotate(k, s).mT for s in (0, 100))
    torch.testing.assert_close(here, there, atol=1e-4, rtol=0)
    torch.testing.assert_close(Rotary.rotate(q, 0)[:, :, 0], q[:, :, 0])
    torch.testing.assert_close(Rotary.rotate(q, 5).norm(dim=3), q.norm(dim=3))


def test_a_lane_does_not_see_another(model, spec, random_window):
    window = random_window(3, 5, seed=4)
    other = {name: values.clone() for name, values in window.items()}
    for name, values in random_window(3, 5, seed=5).items():
        other[name][1] = values[1]
    torch.testing.assert_close(model(other)[[0, 2]], model(window)[[0, 2]])


def test_training_in_bfloat16_gives_nearly_the_logits_of_float32(model, random_window):
    window = random_window(3, 20, seed=6)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(window)
    assert rough.dtype == torch.bfloat16
    torch.testing.assert_close(rough.float(), model(window), atol=0.15, rtol=0.05)


class Life:
    """A random life of N lanes: what a memory is told, and the windows that it should hold."""

    def __init__(self, random_window, spec, lanes: int, steps: int):
        self.window, self.spec = random_window(lanes, steps, seed=7), spec
        self.none = spec.padding_index

    def act(self, memory: ContextMemory, step: int) -> torch.Tensor:
        """The logits of decision `step`, from 1."""
        return memory.act(*(self.window[name][:, step] for name in PRESENT))

    def observe(self, memory: ContextMemory, step: int) -> None:
        reward = torch.tensor(self.spec.rewards)[self.window["reward"][:, step]]
        reached = self.window["next_observation"][:, step]
        memory.observe(self.window["action"][:, step], reward, reached)

    def last(self, decisions: int, step: int) -> dict[str, torch.Tensor]:
        """The window of that many decisions that ends with the open decision `step`."""
        part = {n: v[:, step - decisions : step + 1].clone() for n, v in self.window.items()}
        for name in OUTCOMES:
            part[name][:, -1] = self.none[name]
        return part


LENGTHS = [1, 2, 3, 4, 7, 12]


@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
@pytest.mark.parametrize("context_length", LENGTHS)
def test_cached_logits_are_those_of_a_full_pass_before_and_after_the_window_moves(
    model, spec, random_window, context_length, dtype, error
):
    model = model.to(dtype)
    check_cached_logits(Life(random_window, spec, lanes=3, steps=30), model, context_length, error)


@pytest.mark.parametrize("context_length", LENGTHS)
@pytest.mark.parametrize("variant", [v for v in VARIANTS if is_compiled(v)], ids=words)
def test_the_compiled_backend_rounds_keys_and_values_and_is_the_same_otherwise(
    variant, spec, random_window, context_length
):
    model = random_model(spec, replace(CONFIG, **variant), "compiled")
    life = Life(random_window, spec, lanes=3, steps=30)
    check_cached_logits(life, model, context_length, error=0.2)  # logits are of size 4 here


def check_cached_logits(life, model, context_length: int, error: float) -> None:
    memory = ContextMemory(model, 3, context_length)
    for step in range(1, 31):
        logits = life.act(memory, step)
        full = model(memory.window())[:, -1]
        torch.testing.assert_close(logits, full, atol=error, rtol=0, msg=f"step {step}")
        life.observe(memory, step)


@pytest.mark.parametrize("context_length", LENGTHS)
def test_a_memory_is_rewarded_as_long_as_its_window_holds_a_reward_above_0(
    model, spec, random_window, context_length
):
    life = Life(random_window, spec, lanes=3, steps=30)
    life.window["reward"][:] = 0
    life.window["reward"][1, 5] = life.window["reward"][2, 1:] = 1  # of the rewards 0 and 1
    memory, seen = ContextMemory(model, 3, context_length), []
    for step in range(1, 31):
        life.act(memory, step)
        shown = memory.window()["reward"][:, :-1]
        seen.append((shown == 1).any(1))
        torch.testing.assert_close(memory.reward_in_context(), seen[-1])
        life.observe(memory, step)
    never, once, always = torch.stack(seen).sum(0).tolist()
    assert (never, always) == (0, 29) and 0 < once <= context_length


@pytest.mark.parametrize("context_length", LENGTHS)
def test_a_memory_holds_the_newest_transitions_and_the_one_before_them(
    model, spec, random_window, context_length
):
    life = Life(random_window, spec, lanes=2, steps=30)
    memory = ContextMemory(model, 2, context_length)
    for step in range(1, 31):
        life.act(memory, step)
        window = memory.window()
        decisions = window["time"].shape[1] - 1
        assert min(step, context_length // 2 + 1) <= decisions <= context_length
        for name, expected in life.last(decisions, step).items():
            torch.testing.assert_close(window[name], expected, msg=f"{name}, step {step}")
        life.observe(memory, step)


def test_a_memory_forgets_nothing_until_it_is_full(model, spec, random_window):
    life = Life(random_window, spec, lanes=2, steps=6)
    memory = ContextMemory(model, 2, 6)
    for step in range(1, 7):
        life.act(memory, step)
        assert memory.window()["time"].shape[1] - 1 == step
        life.observe(memory, step)


def test_a_reward_that_no_history_had_is_read_as_the_nearest_one(model, spec, random_window):
    memory, zeros = ContextMemory(model, 2, 4), torch.zeros(2, dtype=torch.int64)
    memory.act(zeros, zeros)
    memory.observe(zeros, torch.tensor([0.4, 7.0]), zeros)
    assert memory.window()["reward"][:, -1].tolist() == [0, 1]


def test_a_stream_reads_each_stream_by_a_softmax_of_its_own_and_weighs_what_it_found():
    q, k, v = (tensor.detach() for tensor in queries(2 * 3, 2, 5, 4))  # two windows, three streams
    across = CrossStreamAttention(3, 2).requires_grad_(False)
    torch.nn.init.normal_(across.gates)
    mixed = across(q, k, v)
    for window, reader in itertools.product(range(2), range(3)):
        shares = across.gates[reader].softmax(1)  # [H, S]
        here = [3 * window + reader]
        by_hand = 0.0
        for source in range(3):
            there = [3 * window + source]
            found = attention_by_hand(q[here], k[there], v[there])
            by_hand = by_hand + shares[:, source, None, None] * found
        torch.testing.assert_close(mixed[here], by_hand)


def test_every_gate_learns(spec, random_window):
    model = SequenceModel(spec, replace(CONFIG, tokenizer="modal"))
    torch.nn.init.normal_(model.head.weight)
    model(random_window(2, 6, seed=4)).square().sum().backward()
    first, *_, last = (block.attention.across.gates.grad for block in model.transformer.blocks)
    assert (first != 0).all()
    assert (last[0] != 0).all() and (last[1:] == 0).all()  # only observations decide in the end


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_all_tokenizers_have_the_same_budget_of_weights(spec, tokenizer):
    # Fused has one map of an observation more, of 64 x 64; modal has 18 gates a block.
    def weights(name):
        model = SequenceModel(spec, ModelConfig(tokenizer=name))
        return sum(parameter.numel() for parameter in model.parameters())

    assert weights(tokenizer) == pytest.approx(weights("separate"), rel=0.025)


def test_a_cache_gives_back_what_it_was_given_and_can_start_again():
    cache = KVCache(2, 3, 4, 5, 6, like=torch.zeros(1))
    keys, values, *_ = queries(3, 4, 2, 6)
    for _ in range(2):
        for layer in range(2):
            cache.append(layer, keys, values)
        cache.advance(2)
        first, second = cache.append(1, keys, values)
        torch.testing.assert_close(first, torch.cat([keys, keys], 2))
        torch.testing.assert_close(second, torch.cat([values, values], 2))
        cache.reset()


def test_a_full_cache_takes_no_more():
    cache = KVCache(1, 1, 1, 3, 2, like=torch.zeros(1))
    cache.append(0, *queries(1, 1, 3, 2)[:2])
    cache.advance(3)
    with pytest.raises(AssertionError):
        cache.append(0, *queries(1, 1, 1, 2)[:2])
