"""The model: causal, a function of the whole past, and the same with a cache as without."""

import itertools
from dataclasses import replace

import pytest
import torch

from ad.config.schema import ModelConfig
from ad.methods.context_policy import ContextPolicy
from ad.methods.contexts import SlidingWindow
from ad.models.memories.attention import Attention, fused_attention, product_attention
from ad.models.memories.cache import KVCache
from ad.models.memories.transformer import Transformer
from ad.models.positions import Rotary
from ad.models.rewards import RewardTable
from ad.models.sequence_model import SequenceModel
from ad.registry import ENCODERS, MEMORIES, POSITIONS, REWARDS, TOKENIZERS
from envs.spaces import Discrete

CONFIG = ModelConfig(width=16, layers=2, heads=2, feed_forward=32, positions=40)
OUTCOMES = ("action", "reward", "next_observation")  # known only after the decision
PRESENT = ("observation", "time")  # arguments of `ContextPolicy.act`, which counts the steps
# The field of a window that a position embedding reads; those not listed read none.
FIELD_OF_POSITION = {"env_time": "time", "history": "step"}

RECURRENT = itertools.product(("fused", "separate"), sorted({*MEMORIES} - {"transformer"}))
VARIANTS = [
    *({"encoder": name} for name in ENCODERS if ENCODERS.load(name).supports(Discrete(9, (3, 3)))),
    *({"tokenizer": tokenizer, "position": name} for tokenizer in TOKENIZERS for name in POSITIONS),
    *({"tokenizer": "separate", "reward": reward} for reward in REWARDS),
    {"tokenizer": "separate", "reward_token": "before", "position": "rotary"},
    *({"tokenizer": tokenizer, "norm": "none"} for tokenizer in ("fused", "conditioned")),
    *({"tokenizer": tokenizer, "memory": memory} for tokenizer, memory in RECURRENT),
    *({"memory": memory, "position": "history", "norm": "none"} for memory in MEMORIES),
]


def outcomes(config: ModelConfig) -> list[str]:
    """Return the fields of OUTCOMES that the tokens of a model tell."""
    if not TOKENIZERS.load(config.tokenizer).has_outcomes:
        return ["action"]
    return [name for name in OUTCOMES if name != "reward" or config.reward != "none"]


def words(variant: dict[str, str]) -> str:
    return " ".join(variant.values())


@pytest.fixture(params=VARIANTS, ids=words)
def config(request) -> ModelConfig:
    """The configuration of a small model of each variant."""
    return replace(CONFIG, **request.param)


@pytest.fixture
def known(config) -> list[str]:
    """The fields of a window that are known at a decision and read by the model."""
    field = FIELD_OF_POSITION.get(config.position)
    return ["observation", field] if field else ["observation"]


@pytest.fixture
def model(spec, config) -> SequenceModel:
    """A random model whose logits are large enough to compare."""
    return random_model(spec, config)


def random_model(spec, config) -> SequenceModel:
    torch.manual_seed(0)
    module = SequenceModel(spec, config).eval()
    torch.nn.init.normal_(module.head.weight)
    return module.requires_grad_(False)


def random_qkv(*shape: int, dtype=torch.float32) -> list[torch.Tensor]:
    """Return random q, k and v of `shape`."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for _ in range(3)]


def attention_by_hand(q, k, v):
    """Compute attention by its definition; a query attends to keys up to its own index."""
    new, total = q.shape[2], k.shape[2]
    scores = q @ k.transpose(-1, -2) / q.shape[3] ** 0.5
    hidden = torch.arange(total) > torch.arange(total - new, total)[:, None]
    return scores.masked_fill(hidden, float("-inf")).softmax(-1) @ v


@pytest.mark.parametrize("attend", [fused_attention, product_attention])
@pytest.mark.parametrize(("new", "total"), [(1, 1), (5, 5), (1, 7), (3, 7)])
def test_attention_is_the_definition(attend, new, total):
    q, k, v = random_qkv(2, 3, total, 4)
    q = q[:, :, total - new :]
    torch.testing.assert_close(attend(q, k, v), attention_by_hand(q, k, v))


@pytest.mark.parametrize("attend", [fused_attention, product_attention])
def test_attention_dropout_keeps_the_mean(attend):
    q, k, v = (tensor.detach() for tensor in random_qkv(1, 1, 6, 4))
    torch.manual_seed(0)
    mean = sum(attend(q, k, v, 0.3) for _ in range(3000)) / 3000
    torch.testing.assert_close(mean, attend(q, k, v), atol=0.06, rtol=0)


def changed(window, spec, entry: int, names) -> dict[str, torch.Tensor]:
    """Return `window` with other values of the fields `names` at `entry`, in all environments."""
    other = {name: values.clone() for name, values in window.items()}
    sizes = {"observation": 9, "action": 5, "reward": 2, "next_observation": 9}
    sizes |= {"time": spec.episode_length, "step": CONFIG.positions}
    for name in names:
        other[name][:, entry] = (other[name][:, entry] + 1) % sizes[name]
    return other


def test_a_later_change_leaves_earlier_logits_as_they_are(model, spec, random_window, known):
    window = random_window(3, 7, seed=0)
    before = model(window)
    for entry in range(1, 8):
        after = model(changed(window, spec, entry, (*known, *OUTCOMES)))
        torch.testing.assert_close(after[:, : entry - 1], before[:, : entry - 1], atol=1e-6, rtol=0)


def test_the_outcome_of_a_decision_leaves_its_own_logits_as_they_are(model, spec, random_window):
    window = random_window(3, 7, seed=1)
    before = model(window)
    for entry in range(1, 8):
        after = model(changed(window, spec, entry, OUTCOMES))
        torch.testing.assert_close(after[:, :entry], before[:, :entry], atol=1e-6, rtol=0)


def test_a_change_of_any_past_field_changes_all_later_logits(
    model, config, spec, random_window, known
):
    window = random_window(3, 7, seed=2)
    before = model(window)
    for name in (*known, *outcomes(config)):
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
        is_read = FIELD_OF_POSITION.get(position) == name
        assert torch.equal(model(window), model(other)) != is_read, name


@pytest.mark.parametrize("position", POSITIONS)
def test_only_the_history_position_depends_on_where_a_window_was_cut_from_its_history(
    spec, random_window, position
):
    model = random_model(spec, replace(CONFIG, position=position))
    window = random_window(2, 6, seed=9)
    later = window | {"step": window["step"] + 10}
    assert torch.equal(model(window), model(later)) == (position != "history")


def test_steps_beyond_the_position_table_read_its_last_entry(spec, random_window):
    model = random_model(spec, replace(CONFIG, position="history"))
    window = random_window(2, 6, seed=9)
    windows = [window | {"step": window["step"] + more} for more in (39, 1000)]
    torch.testing.assert_close(*(model(one)[:, 1:] for one in windows))


def of_blocks(rotate=None, **settings) -> Transformer:
    """Return a random transformer of one block, outside of a model."""
    config = ModelConfig(width=8, layers=1, heads=2, feed_forward=16, **settings)
    return Transformer(config, 1, rotate).eval()


@pytest.mark.parametrize(("position", "seen"), [("none", False), ("rotary", True)])
def test_only_a_position_tells_one_block_the_order_of_the_past(position, seen):
    rotate = POSITIONS.load(position).rotate
    transformer = of_blocks(rotate=rotate)
    tokens = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(3))
    last, swapped = (transformer(t)[:, -1] for t in (tokens, tokens[:, [0, 3, 2, 1, 4]]))
    assert torch.allclose(last, swapped, atol=1e-5) != seen


def test_rotary_products_depend_on_how_far_two_tokens_are_apart():
    q, k, _ = random_qkv(2, 3, 7, 8)
    here, there = (Rotary.rotate(q, s) @ Rotary.rotate(k, s).mT for s in (0, 100))
    torch.testing.assert_close(here, there, atol=1e-4, rtol=0)
    torch.testing.assert_close(Rotary.rotate(q, 0)[:, :, 0], q[:, :, 0])
    torch.testing.assert_close(Rotary.rotate(q, 5).norm(dim=3), q.norm(dim=3))


def test_an_environment_does_not_see_another(model, spec, random_window):
    window = random_window(3, 5, seed=4)
    other = {name: values.clone() for name, values in window.items()}
    for name, values in random_window(3, 5, seed=5).items():
        other[name][1] = values[1]
    torch.testing.assert_close(model(other)[[0, 2]], model(window)[[0, 2]])


def test_training_in_bfloat16_gives_nearly_the_logits_of_float32(model, random_window):
    window = random_window(3, 20, seed=6)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(window)
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(logits.float(), model(window), atol=0.15, rtol=0.05)


class RandomTrajectory:
    """Random transitions of N environments, and the windows that a policy should hold of them."""

    def __init__(self, random_window, spec, num_envs: int, steps: int):
        self.window, self.spec = random_window(num_envs, steps, seed=7), spec

    def act(self, policy: ContextPolicy, step: int) -> torch.Tensor:
        """Return the logits of decision `step`, from 1."""
        return policy.act(*(self.window[name][:, step] for name in PRESENT))

    def observe(self, policy: ContextPolicy, step: int) -> None:
        action, reward, following = (self.window[name][:, step] for name in OUTCOMES)
        policy.observe(action, reward, reward > 0, reward > 0, following)

    def last(self, decisions: int, step: int) -> dict[str, torch.Tensor]:
        """Return the window that ends with decision `step`, which has no outcome yet."""
        part = {n: v[:, step - decisions : step + 1].clone() for n, v in self.window.items()}
        for name in OUTCOMES:
            part[name][:, -1] = self.spec.padding[name]
        return part


LENGTHS = [1, 2, 7]


def sliding(model, num_envs: int, context_length: int) -> ContextPolicy:
    """Return a policy with a sliding window."""
    return ContextPolicy(model, SlidingWindow(model, num_envs, context_length))


@pytest.mark.parametrize("context_length", LENGTHS)
def test_cached_logits_are_those_of_a_full_pass_before_and_after_the_window_moves(
    model, spec, random_window, context_length
):
    policy = sliding(model.double(), 3, context_length)
    trajectory = RandomTrajectory(random_window, spec, num_envs=3, steps=20)
    for step in range(1, 21):
        logits = trajectory.act(policy, step)
        full = model(policy.window())[:, -1]
        torch.testing.assert_close(logits, full, atol=1e-9, rtol=0, msg=f"step {step}")
        trajectory.observe(policy, step)


@pytest.mark.parametrize("context_length", LENGTHS)
def test_a_reward_is_in_context_as_long_as_the_window_holds_one_above_0(
    spec, random_window, context_length
):
    trajectory = RandomTrajectory(random_window, spec, num_envs=3, steps=30)
    trajectory.window["reward"][:] = 0
    # Environment 1 has one reward of 1, environment 2 has it at every step.
    trajectory.window["reward"][1, 5] = trajectory.window["reward"][2, 1:] = 1
    policy, seen = sliding(random_model(spec, CONFIG), 3, context_length), []
    for step in range(1, 31):
        trajectory.act(policy, step)
        shown = policy.window()["reward"][:, :-1]
        seen.append((shown == 1).any(1))
        torch.testing.assert_close(policy.reward_in_context(), seen[-1])
        trajectory.observe(policy, step)
    never, once, always = torch.stack(seen).sum(0).tolist()
    assert (never, always) == (0, 29) and 0 < once <= context_length


@pytest.mark.parametrize("context_length", LENGTHS)
def test_a_policy_holds_the_newest_transitions_and_the_one_before_them(
    spec, random_window, context_length
):
    trajectory = RandomTrajectory(random_window, spec, num_envs=2, steps=30)
    policy = sliding(random_model(spec, CONFIG), 2, context_length)
    for step in range(1, 31):
        trajectory.act(policy, step)
        window = policy.window()
        decisions = window["time"].shape[1] - 1
        assert min(step, context_length // 2 + 1) <= decisions <= context_length
        for name, expected in trajectory.last(decisions, step).items():
            torch.testing.assert_close(
                window[name], expected, equal_nan=True, msg=f"{name}, step {step}"
            )
        trajectory.observe(policy, step)


def test_a_policy_drops_nothing_until_its_window_is_full(spec, random_window):
    trajectory = RandomTrajectory(random_window, spec, num_envs=2, steps=6)
    policy = sliding(random_model(spec, CONFIG), 2, 6)
    for step in range(1, 7):
        trajectory.act(policy, step)
        assert policy.window()["time"].shape[1] - 1 == step
        trajectory.observe(policy, step)


def test_a_reward_that_no_history_had_is_read_as_the_nearest_one(spec):
    table = RewardTable(spec, 8)
    near = table(torch.tensor([-3.0, 0.4, 0.6, 7.0, float("nan")]))
    torch.testing.assert_close(near, table.weight[[0, 0, 1, 1, 2]])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])  # fused, and as products
def test_a_stream_attends_to_each_stream_by_a_softmax_of_its_own_and_weighs_the_results(dtype):
    # Two windows of three streams.
    q, k, v = (tensor.detach() for tensor in random_qkv(2 * 3, 2, 5, 4, dtype=dtype))
    attention = Attention(8, 2, dropout=0.0, streams=3).requires_grad_(False)
    torch.nn.init.normal_(attention.gates)
    mixed = attention._mix(q, k, v, None)
    for window, reader in itertools.product(range(2), range(3)):
        shares = attention.gates[reader].softmax(1).to(dtype)  # [H, S]
        here = [3 * window + reader]
        by_hand = 0.0
        for source in range(3):
            there = [3 * window + source]
            found = attention_by_hand(q[here], k[there], v[there])
            by_hand = by_hand + shares[:, source, None, None] * found
        error = {} if dtype == torch.float64 else {"atol": 0.03, "rtol": 0.03}
        torch.testing.assert_close(mixed[here], by_hand, **error)


def test_every_gate_that_reaches_the_logits_has_a_gradient(spec, random_window):
    model = SequenceModel(spec, replace(CONFIG, tokenizer="modal"))
    torch.nn.init.normal_(model.head.weight)
    model(random_window(2, 6, seed=4)).square().sum().backward()
    first, *_, last = (block.attn.gates.grad for block in model.transformer.blocks)
    assert (first != 0).all()
    assert (last[0] != 0).all() and (last[1:] == 0).all()  # logits read the observations' stream


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_all_tokenizers_have_about_equally_many_parameters(spec, tokenizer):
    # Fused has one more 64 x 64 projection of an observation; modal has 18 gates a block.
    def num_parameters(name):
        model = SequenceModel(spec, ModelConfig(tokenizer=name))
        return sum(parameter.numel() for parameter in model.parameters())

    assert num_parameters(tokenizer) == pytest.approx(num_parameters("separate"), rel=0.025)


def test_without_norm_what_is_added_to_the_residual_stream_by_values_is_linear():
    block = of_blocks(norm="none").requires_grad_(False).blocks[0]
    assert not any("ln" in name for name, _ in block.named_parameters())
    one, other = torch.randn(2, 1, 1, 8, generator=torch.Generator().manual_seed(0))
    of = [block.attn(x) for x in (one, other, one + other, 0 * one)]
    torch.testing.assert_close(of[0] + of[1], of[2] + of[3])


@pytest.mark.parametrize("norm", ["pre", "none"])
@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_without_blocks_a_decision_reads_its_own_token_alone(spec, random_window, tokenizer, norm):
    model = random_model(spec, replace(CONFIG, layers=0, norm=norm, tokenizer=tokenizer))
    window = random_window(3, 6, seed=1)
    early = window["observation"].clone()
    early[:, 2] = (early[:, 2] + 1) % 9
    same = model(window)[:, 3:], model(window | {"observation": early})[:, 3:]
    assert torch.equal(*same)
    policy = sliding(model, 3, 4)
    logits = policy.act(window["observation"][:, 1], window["time"][:, 1])
    torch.testing.assert_close(logits, model(window)[:, 0])


def test_a_cache_returns_what_was_appended_and_can_be_reset():
    cache = KVCache((2, 3, 4, 5, 6), like=torch.zeros(1))
    keys, values, *_ = random_qkv(3, 4, 2, 6)
    for _ in range(2):
        for layer in range(2):
            cache.append(layer, keys, values)
        cache.advance(2)
        first, second = cache.append(1, keys, values)
        torch.testing.assert_close(first, torch.cat([keys, keys], 2))
        torch.testing.assert_close(second, torch.cat([values, values], 2))
        cache.reset()


def test_a_full_cache_takes_no_more():
    cache = KVCache((1, 1, 1, 3, 2), like=torch.zeros(1))
    cache.append(0, *random_qkv(1, 1, 3, 2)[:2])
    cache.advance(3)
    with pytest.raises(AssertionError):
        cache.append(0, *random_qkv(1, 1, 1, 2)[:2])
