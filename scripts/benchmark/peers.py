"""What a user would take instead: Stable-Baselines3, Gymnasium's vectors, a Hugging Face GPT-2.

The first and the last come with the extra `bench`; without it their rows have no peer.
"""

import importlib.util

import torch
import torch.nn.functional as F
from torch import nn

import envs
from ad.runtime.console import warn


def installed(package: str) -> bool:
    """Whether `package` can be imported; if not, a warning says what its absence costs."""
    if importlib.util.find_spec(package) is not None:
        return True
    warn(f"{package} is not installed, its rows have no peer: pip install -e '.[bench]'")
    return False


def sb3_a2c(env_id: str, num_envs: int, settings, **kwargs):
    """Stable-Baselines3's A2C on `num_envs` copies of a world, with our learner's settings."""
    from stable_baselines3 import A2C
    from stable_baselines3.common.vec_env import DummyVecEnv

    return A2C(
        "MlpPolicy",
        DummyVecEnv([lambda: envs.make(env_id, **kwargs)] * num_envs),
        learning_rate=settings.learning_rate,
        n_steps=settings.rollout_length,
        gamma=settings.discount,
        gae_lambda=1.0,
        ent_coef=settings.entropy_coefficient,
        vf_coef=settings.value_coefficient,
        max_grad_norm=settings.gradient_norm,
        use_rms_prop=False,
        policy_kwargs={"net_arch": [settings.hidden]},
        device="cpu",
    )


class GPT2(nn.Module):
    """A Hugging Face GPT-2 of our model's shape between our tokens and a linear head."""

    def __init__(self, model, positions: int):
        super().__init__()
        from transformers import GPT2Config, GPT2Model

        blocks = model.transformer.blocks
        shape = GPT2Config(
            vocab_size=1,
            bos_token_id=0,
            eos_token_id=0,
            n_positions=positions,
            n_embd=model.transformer.width,
            n_layer=len(blocks),
            n_head=model.transformer.heads,
            n_inner=blocks[0].up.out_features,
            resid_pdrop=blocks[0].dropout,
            embd_pdrop=0.0,
            attn_pdrop=blocks[0].attention.dropout,
        )
        self.tokenizer, self.body = model.tokenizer, GPT2Model(shape)
        self.head = nn.Linear(shape.n_embd, model.spec.num_actions)

    def forward(self, window: dict[str, torch.Tensor]) -> torch.Tensor:
        """Logits [B, T, A] of a window [B, T + 1]."""
        hidden = self.body(inputs_embeds=self.tokenizer(window), use_cache=False).last_hidden_state
        return self.head(self.tokenizer.at_decisions(hidden))

    def loss(self, window: dict[str, torch.Tensor], valid: torch.Tensor) -> torch.Tensor:
        """Cross entropy at the valid decisions, as algorithm distillation has it."""
        targets = window["action"][:, 1:].masked_fill(~valid, -100).flatten()
        return F.cross_entropy(self(window).flatten(0, 1).float(), targets)
