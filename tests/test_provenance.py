"""An evaluation cannot fool itself: a checkpoint is refused by what it says it was made of."""

from dataclasses import replace

import pytest
from training_run import checkpoint, forget_last_checkpoint

from ad.errors import ConfigError
from ad.evaluation.evaluate import evaluate, load_model
from ad.runtime.run import Run
from ad.training.provenance import check_fingerprint, fingerprint
from ad.training.trainer import Trainer, checkpoints
from envs.tasks import task_name


def forge(run: Run, step: int = 8, **changes) -> None:
    """Write a checkpoint that says it was made of something else."""
    made = fingerprint(run.config, run.split) | changes
    content = checkpoint(run) | {"fingerprint": made}
    checkpoints.save(run.folder / "checkpoints", step, content)


def refusal(run: Run) -> str:
    """The sentence with which both ways to use the checkpoint are refused."""
    sentences = set()
    for use in (evaluate, load_model):
        with pytest.raises(ConfigError) as caught:
            use(run)
        sentences.add(str(caught.value))
    (sentence,) = sentences
    assert "\n" not in sentence
    return sentence


def test_a_held_out_task_that_was_trained_on_is_refused_by_name(trained):
    seen = trained.split.held_out_tasks[1]
    tasks = [*trained.split.train_tasks.tolist(), seen.tolist()]
    forge(trained, train_tasks=tasks)
    assert f"trained on 1 of the held-out tasks ({task_name(seen)})" in refusal(trained)


@pytest.mark.parametrize("name", ["world", "encoder", "method"])
def test_a_checkpoint_of_another_kind_is_refused(trained, name):
    forge(trained, **{name: "0" * 64})
    assert f"was trained with another {name} than the configured one" in refusal(trained)


def test_training_does_not_resume_from_a_checkpoint_of_another_split(trained):
    forget_last_checkpoint(trained)
    forge(trained, step=6, split="0" * 64)
    with pytest.raises(ConfigError, match="another split"):
        Trainer(trained)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("--split.split_seed", "3"), "trained on"),
        (("--env.episode_length", "6"), "another world"),
        (("--model.next_observation", "false"), "another model"),
        (("--data.context_length", "16"), "another data"),
        (("--method.name", "expert_distillation"), "another method"),
    ],
)
def test_a_checkpoint_copied_into_the_run_of_another_configuration_is_refused(
    trained, experiment, words, name
):
    other = experiment(*words, training__precision="float32")
    content = {"fingerprint": fingerprint(trained.config, trained.split)}
    with pytest.raises(ConfigError, match=name):
        check_fingerprint(content, other, Run(other).split)


def test_how_the_training_is_logged_and_where_it_runs_does_not_matter(trained):
    config = trained.config
    other = replace(
        config, name="other", threads=2, training=replace(config.training, eval_every=3)
    )
    check_fingerprint({"fingerprint": fingerprint(config, trained.split)}, other, Run(other).split)
