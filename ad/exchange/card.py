"""The model card of a release, with the front matter and the results that Hugging Face reads."""

import re

from ad.config.schema import EnvConfig, config_hash
from ad.config.yaml_io import dump_yaml
from ad.evaluation.scores import SCORES, columns
from ad.evaluation.summary import SUMMARY, is_evaluated
from ad.methods import build_method
from ad.reporting.tables import SPLIT_TITLES, run_table
from ad.runtime.files import read_checked_json
from ad.runtime.run import Run

LIBRARY = "algorithm-distillation"


def read_results(run: Run) -> dict | None:
    """Return the content of results.json, None if the run is not evaluated."""
    return read_checked_json(run.folder / SUMMARY) if is_evaluated(run) else None


def card(run: Run, num_parameters: int) -> str:
    """Return the model card of a run as Markdown: its model, training data and scores."""
    results = read_results(run)
    scores = run_table(results).compact().markdown() if results else "It is not evaluated."
    config, train, method = run.config, len(run.split.train_tasks), build_method(run.config.method)
    if method.reads_histories:
        source = f"({config.source.algorithm}, {config.source.env_steps:,} env steps each)"
        trained = f"for {config.training.steps:,} steps on the histories of {train} tasks {source}"
    else:
        trained = f"in the worlds of {train} tasks, for {method.transitions(config):,} env steps"
    return CARD.format(
        front_matter=dump_yaml(_front_matter(run, results)),
        config=config,
        num_parameters=num_parameters,
        trained=trained,
        held_out=len(run.split.held_out_tasks),
        world=_world(config.env),
        method=config.method.name.replace("_", " "),
        config_hash=config_hash(config),
        split_hash=run.split.hash,
        scores=scores.rstrip(),
    )


def eval_results(run: Run, results: dict) -> str:
    """Return the scores on held-out tasks as YAML for the folder `.eval_results` of a repository.

    The Hub shows the scores on data sets that declare themselves benchmarks. The id of the data
    set, algorithm-distillation/<world>, must change when the benchmark has another owner.
    """
    notes = f"{len(run.split.held_out_tasks)} held-out tasks, split {run.split.hash[:12]}"
    entries = [
        {
            "dataset": {"id": benchmark_id(_world(run.config.env)), "task_id": name},
            "value": value,
            "notes": f"{notes}: {SCORES[name].heading}",
        }
        for name, value in _scores(results["splits"]["held_out"]).items()
    ]
    return dump_yaml(entries)


def _world(env: EnvConfig) -> str:
    """Return what the tasks are of, and whether they change."""
    if not env.change:
        return env.id
    often = "after every episode" if env.change == 1 else f"every {env.change:g} episodes"
    if env.change < 1:
        often = f"after an episode with a probability of {env.change:g}"
    return f"{env.id} with tasks that change {often}"


def benchmark_id(world: str) -> str:
    """Return the id of the data set with which a world is a benchmark."""
    return f"{LIBRARY}/{re.sub(r'[^A-Za-z0-9._-]+', '-', world)}"


def _front_matter(run: Run, results: dict | None) -> dict:
    """Return the metadata of the card; with results the part that the Hub calls model-index."""
    metadata = {
        "library_name": LIBRARY,
        "pipeline_tag": "reinforcement-learning",
        "tags": ["reinforcement-learning", "in-context-learning", run.config.env.id],
    }
    if results is None:
        return metadata
    entries = [
        {
            "task": {"type": "reinforcement-learning", "name": "in-context reinforcement learning"},
            "dataset": {
                "type": run.config.env.id,
                "name": f"{_world(run.config.env)}, {SPLIT_TITLES[split]}",
                "split": split,
            },
            "metrics": [
                {"type": name, "value": value, "name": SCORES[name].heading}
                for name, value in _scores(summary).items()
            ],
        }
        for split, summary in results["splits"].items()
    ]
    return metadata | {"model-index": [{"name": run.config.name, "results": entries}]}


def _scores(summary: dict) -> dict[str, float]:
    """Return the scores of a split that are not None, by name."""
    names = (score.name for score in columns("run"))
    return {name: summary[name] for name in names if summary.get(name) is not None}


CARD = """\
---
{front_matter}---

# {config.name}

A sequence model ({config.model.memory}) of {num_parameters:,} parameters that acts on its past
transitions, and so learns in context to solve tasks that it was not trained on: of {world}.
Method: {method}.

- Trained {trained}; {held_out} tasks were held out.
- Configuration {config_hash}
- Split {split_hash}

## Scores

{scores}

## Use

```python
from ad.exchange.release import load_release

policy = load_release(".")  # checks SHA256SUMS
policy.reset()              # forgets its context
observation, info = env.reset()
while True:
    action = policy.act(observation)
    observation, reward, terminated, truncated, info = env.step(action)
    policy.observe(reward, terminated, truncated, observation)
    if terminated or truncated:
        observation, info = env.reset()
```

Made for research: it was trained in the world above and in no other.
"""
