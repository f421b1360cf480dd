"""The model: causal, a function of the whole past, and the same with a cache as without."""

import itertools
from dataclasses import replace

import pytest
import torch

from ad.config.schema import ModelConfig
from ad.methods.context_policy import ContextPolicy
from ad.methods.contexts import SlidingWindow
from ad.models.attention import Attention, fused_attention, product_attention
from ad.models.cache import KVCache
from ad.models.positions.rotary import Rotary
from ad.models.sequence_model import SequenceModel
from ad.registry import ENCODERS, POSITIONS, REWARDS, TOKENIZERS
from envs.spaces import Discrete

CONFIG = ModelConfig(width=16, layers=2, heads=2, feed_forward=32, positions=40)
OUTCOMES = ("action", "reward", "next_observation")  # known only after the decision
PRESENT = ("observation", "time")  # arguments of `ContextPolicy.act`, which counts the steps
# The field of a window that a position embedding reads; those not listed read none.
FIELD_OF_POSITION = {"env_time": "time", "history": "step"}

VARIANTS = [
    *({"encoder": name} for name in ENCODERS if ENCODERS.load(name).supports(Discrete(9, (3, 3)))),
    *({"tokenizer": tokenizer, "position": name} for tokenizer in TOKENIZERS for name in POSITIONS),
    *({"tokenizer": "separate", "reward": reward} for reward in REWARDS),
    {"tokenizer": "separate", "reward_token": "before", "position": "rotary"},
    *({"tokenizer": tokenizer, "norm": "none"} for tokenizer in ("fused", "conditioned")),
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


def test_a_change_of_any_past_field_changes_all_later_logits(
    model, config, spec, random_window, known
):
    window = random_window(3, 7, seed=2)
    before = model(window)
    for name in (*known, *outcomes(config)):
        for entry in range(1, 7):
            difference = (model(changed(window, spec, entry, [name])) - before).abs()
            assert (difference[:, entry:].amax(-1) > 1e-4).all(), f"{name}, entry {entry}"


@pytest.mark.parametrize("position", POSITIONS)
def test_a_position_reads_its_own_field_and_no_other(spec, random_window, position):
    model = random_model(spec, replace(CONFIG, position=position))
    window = random_window(2, 6, seed=8)
    for name in ("time", "step"):
        other = changed(window, spec, 3, [name])
        is_read = FIELD_OF_POSITION.get(position) == name
        assert torch.equal(model(window), model(other)) != is_read, name


def test_rotary_products_depend_on_how_far_two_tokens_are_apart():
    q, k, _ = random_qkv(2, 3, 7, 8)
    here, there = (Rotary.rotate(q, s) @ Rotary.rotate(k, s).mT for s in (0, 100))
    torch.testing.assert_close(here, there, atol=1e-4, rtol=0)
    torch.testing.assert_close(Rotary.rotate(q, 0)[:, :, 0], q[:, :, 0])
    torch.testing.assert_close(Rotary.rotate(q, 5).norm(dim=3), q.norm(dim=3))


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


def test_a_cache_returns_what_was_appended_and_can_be_reset():
    cache = KVCache(2, 3, 4, 5, 6, like=torch.zeros(1))
    keys, values, *_ = random_qkv(3, 4, 2, 6)
    for _ in range(2):
        for layer in range(2):
            cache.append(layer, keys, values)
        cache.advance(2)
        first, second = cache.append(1, keys, values)
        torch.testing.assert_close(first, torch.cat([keys, keys], 2))
        torch.testing.assert_close(second, torch.cat([values, values], 2))
        cache.reset()
