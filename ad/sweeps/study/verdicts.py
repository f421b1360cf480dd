"""What the records of a study say: the results of each value and its comparison with the reference.

Every value of a question is compared with the question's reference by the score of the study (NAUC
unless it says another), with one standard deviation over training seeds that is pooled within all
settings of the study. The p values are corrected for all comparisons of the study.
"""

from dataclasses import dataclass, replace

import numpy as np
import yaml

from ad.config.fields import label
from ad.config.schema import Experiment, config_hash
from ad.evaluation.comparisons import (
    BETTER,
    WORSE,
    Comparison,
    PooledDeviation,
    holm,
    pool,
)
from ad.evaluation.metrics import t_interval
from ad.sweeps.records import RunRecord
from ad.sweeps.study.plan import Question, Study

Estimate = tuple[float | None, tuple[float, float] | None]  # mean and 95 % interval


@dataclass(frozen=True)
class ValueResults:
    """The results of one value of a question: its records and the seeds without one.

    compared: the score by which values are compared.
    pooled: its standard deviation over seeds, pooled within all settings of the study.
    """

    records: list[RunRecord]
    missing: list[int]
    compared: str
    pooled: PooledDeviation | None = None

    def values(self, score: str) -> list[float]:
        """Return the known values of a score, one for each seed that has it."""
        return [record[score] for record in self.records if record[score] is not None]

    def estimate(self, score: str) -> Estimate:
        """Return the mean and 95 % interval of a score, over tasks if only one seed has it.

        The compared score has the interval of the pooled standard deviation, if there is one.
        """
        over_seeds = t_interval(self.values(score))
        mean, low, high = (over_seeds[name] for name in ("mean", "lo", "hi"))
        if score == self.compared and self.pooled and mean is not None:
            return mean, self.pooled.interval(mean, over_seeds["n"])
        if over_seeds["n"] == 1:
            (record,) = (record for record in self.records if record[score] is not None)
            low, high = record.get(f"{score}_low"), record.get(f"{score}_high")
        return mean, None if low is None else (low, high)


@dataclass(frozen=True)
class StudyResults:
    """The results by question and value, and the comparison of each value but the reference.

    A comparison is missing where the value or the reference has no record. `settings` has the
    compared score of each distinct experiment, one number a seed, and `pooled` their standard
    deviation, None where no experiment has two seeds.
    """

    values: dict[str, dict[str, ValueResults]]
    comparisons: dict[str, dict[str, Comparison]]
    settings: list[list[float]]
    pooled: PooledDeviation | None


def study_results(study: Study, records: dict[str, RunRecord]) -> StudyResults:
    """Return the results of all questions and their comparisons from the `records` by key."""
    asked = [config for question in study.questions for config in question.variants.values()]
    found = {config_hash(config): _value_results(study, config, records) for config in asked}
    settings = [value.values(study.score) for value in found.values()]
    pooled = pool(settings)
    values = {
        question.name: {
            name: replace(found[config_hash(config)], pooled=pooled)
            for name, config in question.variants.items()
        }
        for question in study.questions
    }
    return StudyResults(values, _comparisons(study, values, pooled), settings, pooled)


def with_verdict(comparisons: dict[str, Comparison], verdict: str) -> list[str]:
    """Return the names of the values whose comparison has this verdict."""
    return [name for name, compared in comparisons.items() if compared.verdict == verdict]


def contradictions(study: Study, results: StudyResults) -> list[str]:
    """Return a text for each question whose file states other verdicts than the records.

    It ends with the verdicts of the records in the form of the file. A question with missing runs
    has no verdicts, and its text says so.
    """
    texts = []
    for question in study.questions:
        path = study.folder / f"{question.name}.yaml"
        missing = sum(len(value.missing) for value in results.values[question.name].values())
        comparisons = results.comparisons[question.name]
        stated = {BETTER: question.config.better, WORSE: question.config.worse}
        if missing:
            texts.append(f"{path}: {missing} of its runs have no record")
        elif any(
            {label(value) for value in values} != set(with_verdict(comparisons, verdict))
            for verdict, values in stated.items()
        ):
            texts.append(f"{path}: the records say\n{_in_yaml(question, comparisons)}")
    return texts


def _in_yaml(question: Question, comparisons: dict[str, Comparison]) -> str:
    """Return the verdicts as lines of the question's file, with values as they stand there."""
    names = {label(value): value for value in question.config.values}
    names |= {name: name for name in question.config.variants}
    stated = {v: [names[n] for n in with_verdict(comparisons, v)] for v in (BETTER, WORSE)}
    return yaml.safe_dump(stated, default_flow_style=None, width=1_000).strip()


def _value_results(study: Study, config: Experiment, records: dict[str, RunRecord]) -> ValueResults:
    keys = {seed: study.planned_run(config, seed).key for seed in study.seeds}
    found = [records[key] for key in keys.values() if key in records]
    missing = [seed for seed, key in keys.items() if key not in records]
    return ValueResults(found, missing, study.score)


def _comparisons(
    study: Study, values: dict[str, dict[str, ValueResults]], pooled: PooledDeviation | None
) -> dict[str, dict[str, Comparison]]:
    """Compare each value with its question's reference; the p values are corrected for them all."""
    pairs = {}  # (question, value) -> difference and the two numbers of seeds
    for question in study.questions:
        scores = {name: v.values(study.score) for name, v in values[question.name].items()}
        reference = scores.pop(question.reference(study.base))
        for name, own in scores.items():
            if own and reference:
                difference = float(np.mean(own) - np.mean(reference))
                pairs[question.name, name] = difference, len(own), len(reference)
    p_values = holm([pooled.p_value(*pair) for pair in pairs.values()]) if pooled else ()
    corrected = dict(zip(pairs, p_values, strict=False))
    compared: dict[str, dict[str, Comparison]] = {question: {} for question in values}
    for (question, name), pair in pairs.items():
        bounds = pooled.interval(*pair) if pooled else None
        compared[question][name] = Comparison(pair[0], bounds, corrected.get((question, name)))
    return compared
