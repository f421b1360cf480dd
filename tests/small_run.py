"""A run that is evaluated but not trained, for tests of reports, videos and releases."""

import numpy as np
import torch

from ad.config.schema import Experiment
from ad.data.spec import make_spec
from ad.evaluation.results import write_results
from ad.evaluation.summary import write_summary
from ad.methods import build_method
from ad.models.sequence_model import SequenceModel
from ad.rollout.tasks import policy_of, rollout_tasks
from ad.runtime.run import Run
from ad.training import checkpoints


def evaluated_run(config: Experiment) -> Run:
    """Return the run of `config` with the results of an untrained model."""
    run, settings = Run.open(config), config.evaluation
    torch.manual_seed(0)
    spec = make_spec(run.world, config.env.episode_length, np.array([0.0, 1.0]))
    model = SequenceModel(spec, config.model).eval()
    seeds = (settings.eval_seeds, settings.train_eval_seeds)
    new_policy = policy_of(config, build_method(config.method), model)
    split = run.evaluated_split
    results = rollout_tasks(config, split, new_policy, settings.episodes, seeds, record=True)
    if not checkpoints.newest(folder := run.folder / "checkpoints"):
        folder.mkdir()
        (folder / checkpoints.name(0)).touch()  # by which results are those of a model
    write_results(run.folder, split, results)
    write_summary(run)
    return run
