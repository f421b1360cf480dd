"""Peers from other libraries: the A2C of Stable-Baselines3 and a Hugging Face GPT-2.

They come with the extra `bench`; without it their measurements have no peer.
"""

import importlib.util

import torch
import torch.nn.functional as F
from torch import nn

import envs
from ad.runtime.console import warn


def installed(package: str, extra: str = "bench") -> bool:
    """Return whether `package`, which comes with `extra`, is installed; warn if it is not."""
    if importlib.util.find_spec(package) is not None:
        return True
    warn(f"{package} is not installed: no comparison with it. Run pip install -e '.[{extra}]'")
    return False


def sb3_a2c(env_id: str, num_envs: int, settings, **kwargs):
    """Return Stable-Baselines3's A2C on `num_envs` environments, with the `settings` of our A2C.

    `kwargs` are those of the environment.
    """
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
    """A Hugging Face GPT-2 of the shape of `model`, with its tokenizer and a linear head.

    `num_tokens` is the longest sequence.
    """

    def __init__(self, model, num_tokens: int):
        super().__init__()
        from transformers import GPT2Config, GPT2Model

        blocks = model.transformer.blocks
        config = GPT2Config(
            vocab_size=1,
            bos_token_id=0,
            eos_token_id=0,
            n_positions=num_tokens,
            n_embd=model.transformer.width,
            n_layer=len(blocks),
            n_head=model.transformer.heads,
            n_inner=blocks[0].mlp.up.out_features,
            resid_pdrop=blocks[0].dropout,
            embd_pdrop=0.0,
            attn_pdrop=blocks[0].attn.dropout,
        )
        self.tokenizer, self.transformer = model.tokenizer, GPT2Model(config)
        self.head = nn.Linear(config.n_embd, model.spec.num_actions)

    def forward(self, window: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the action logits [B, T, A] of `window`, [B, T + 1] each."""
        output = self.transformer(inputs_embeds=self.tokenizer(window), use_cache=False)
        return self.head(self.tokenizer.at_decisions(output.last_hidden_state))

    def loss(self, window: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the mean cross entropy of the actions at the valid decisions."""
        targets = window["action"][:, 1:].masked_fill(~window["valid"][:, 1:], -100).flatten()
        return F.cross_entropy(self(window).flatten(0, 1).float(), targets)
