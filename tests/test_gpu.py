"""A GPU gives the numbers of a CPU, but for rounding. Skipped where there is none."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from training_run import states, train

from ad.methods import build_method
from ad.methods.context_policy import ContextPolicy
from ad.methods.contexts import SlidingWindow
from ad.models.sequence_model import ModelConfig, SequenceModel
from ad.rollout.tasks import policy_of, rollout_tasks
from ad.runtime.run import Run
from ad.training.trainer import Trainer

DEVICE = "cuda"
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")

PLAIN = {
    "training__precision": "float32",
    "model__dropout": "0",  # random numbers differ between devices
    "model__attention_dropout": "0",
}


@pytest.mark.parametrize("tokenizer", ["fused", "separate", "modal"])
@pytest.mark.parametrize("position", ["env_time", "window", "history", "rotary", "none"])
def test_logits_are_those_of_a_cpu(spec, random_window, tokenizer, position):
    torch.manual_seed(0)
    config = ModelConfig(width=32, layers=3, tokenizer=tokenizer, position=position)
    model, window = SequenceModel(spec, config).eval(), random_window(4, 40, seed=1)
    with torch.inference_mode():
        here = model(window)
        there = model.to(DEVICE)({name: value.to(DEVICE) for name, value in window.items()})
    torch.testing.assert_close(there.cpu(), here, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("tokenizer", ["fused", "separate", "modal"])
def test_training_steps_are_those_of_a_cpu(experiment, tokenizer):
    runs = [
        train(experiment("--device", device, model__tokenizer=tokenizer, **PLAIN))
        for device in both()
    ]
    losses = [losses_of(run) for run in runs]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)
    weights, others = (states(run)[0] for run in runs)
    for name, value in weights.items():
        torch.testing.assert_close(others[name].cpu(), value.cpu(), atol=2e-3, rtol=0, msg=name)


def test_bfloat16_training_comes_down_as_on_a_cpu(experiment):
    words = {"training__precision": "bfloat16", "training__steps": "40"}
    runs = [train(experiment("--device", device, **words)) for device in both()]
    losses = [losses_of(run) for run in runs]
    ends = [np.mean(of_run[-10:]) for of_run in losses]
    assert ends[1] == pytest.approx(ends[0], rel=0.05)


def test_episodes_in_the_context_are_those_of_a_cpu(experiment):
    trainer = Trainer(Run.open(experiment("--device", "cpu")))
    config, split = trainer.config, trainer.run.split
    model = trainer.model.eval().requires_grad_(False).double()  # a CPU rounds in float32
    lengths = []
    for device in both():
        new_policy = policy_of(config, build_method(config.method), model.to(device))
        played = rollout_tasks(config, split, new_policy, 8, (3, 2))
        lengths.append(np.concatenate([part.lengths for part in played.values()]))
    assert (lengths[0] == lengths[1]).mean() > 0.95  # a draw may fall between two roundings


def test_a_context_gives_the_logits_of_a_cpu_but_for_what_that_rounds(spec, random_window):
    torch.manual_seed(0)
    model = SequenceModel(spec, ModelConfig(width=32, layers=3)).eval().requires_grad_(False)
    torch.nn.init.normal_(model.head.weight)
    window, logits = random_window(4, 40, seed=1), []
    for device in both():
        told = {name: value.to(device) for name, value in window.items()}
        model, seen = model.to(device), []
        policy = ContextPolicy(model, SlidingWindow(model, 4, 12))
        for step in range(1, 41):
            seen.append(policy.act(told["observation"][:, step], told["time"][:, step]).cpu())
            outcome = (told[n][:, step] for n in ("action", "reward", "valid", "valid"))
            policy.observe(*outcome, told["next_observation"][:, step])
        logits.append(torch.stack(seen))
    torch.testing.assert_close(logits[1], logits[0], atol=0.2, rtol=0)  # of size 6


def test_a_run_resumes_on_the_other_device(experiment):
    class Once:
        """Asks to stop after four steps."""

        count = 0

        def __call__(self) -> bool:
            self.count += 1
            return self.count == 4

    config = experiment("--device", "cpu", **PLAIN)
    run = train(config, Once())
    train(replace(config, device=DEVICE))
    assert [line["step"] for line in log(run) if "train/loss" in line] == list(range(1, 9))


def both() -> tuple[str, str]:
    return "cpu", DEVICE


def losses_of(run: Run) -> list[float]:
    return [line["train/loss"] for line in log(run) if "train/loss" in line]


def log(run: Run) -> list[dict]:
    return [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
