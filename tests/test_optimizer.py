"""The optimizer on flat parameters against torch's own on one tensor each."""

from dataclasses import replace

import pytest
import torch
from torch.nn.utils import clip_grad_norm_

from ad.config.schema import TrainingConfig
from ad.training.optimizer import FlatAdamW, loss_and_grad

SETTINGS = replace(TrainingConfig(), learning_rate=0.1, weight_decay=0.3, gradient_norm=0.5)


def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.LayerNorm(8), torch.nn.Linear(8, 3))


def loss_of(net: torch.nn.Module, step: int, size: float = 1.0) -> torch.Tensor:
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(step))
    return size * (net(x) ** 2).mean()


@pytest.mark.parametrize("size", [1e-3, 10.0])  # gradients below and above the largest norm
def test_updates_are_those_of_adamw_behind_torchs_clip(size):
    mine, plain = model(), model()
    optimizer = FlatAdamW(mine, SETTINGS)
    decays = [p for p in plain.parameters() if p.dim() >= 2]
    others = [p for p in plain.parameters() if p.dim() < 2]
    groups = [{"params": decays, "weight_decay": 0.3}, {"params": others, "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, betas=(SETTINGS.beta1, SETTINGS.beta2))
    for step, rate in enumerate((0.1, 0.05, 0.2)):
        loss, found = loss_and_grad(
            optimizer, lambda _, n=step: loss_of(mine, n, size), [slice(None)]
        )
        optimizer.update(found, loss, rate)
        adamw.zero_grad()
        loss_of(plain, step, size).backward()
        clip_grad_norm_(plain.parameters(), SETTINGS.gradient_norm)
        for group in adamw.param_groups:
            group["lr"] = rate
        adamw.step()
    for one, other in zip(mine.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_weights_keep_their_values_in_flat_parameters():
    net, plain = model(), model()
    optimizer = FlatAdamW(net, SETTINGS)
    torch.testing.assert_close(net.state_dict(), plain.state_dict(), rtol=0, atol=0)
    for flat in optimizer.flat_params:
        flat.data.zero_()
    assert all(not parameter.any() for parameter in net.parameters())
