"""The backends of the transformer: one interface, chosen outside the configuration's hash."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from processes import ROOT

from ad.config.schema import Experiment, ModelConfig, config_hash
from ad.errors import ConfigError
from ad.methods import build_method, build_model
from ad.models.backend import choose_backend
from ad.models.sequence_model import SequenceModel
from ad.registry import BACKENDS

CPU = torch.device("cpu")
ROTARY = replace(Experiment(), model=ModelConfig(position="rotary"))


def test_auto_is_the_first_backend_that_supports_the_model():
    assert choose_backend(Experiment(), CPU) == "compiled"
    assert choose_backend(Experiment(), torch.device("cuda")) == "torch"
    assert choose_backend(ROTARY, CPU) == "torch"


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_configured_backend_is_the_one_of_the_model(backend, spec):
    config = replace(Experiment(), backend=backend)
    transformer = build_model(build_method(config.method), spec, config, CPU).transformer
    assert type(transformer) is BACKENDS.load(backend)


def test_a_configured_backend_that_does_not_support_the_model_is_refused():
    with pytest.raises(ConfigError, match="backend compiled does not support this model on cpu"):
        choose_backend(replace(ROTARY, backend="compiled"), CPU)


def test_the_backend_is_no_part_of_the_configurations_hash():
    hashes = {config_hash(replace(Experiment(), backend=name)) for name in ("auto", *BACKENDS)}
    assert len(hashes) == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_backends_begin_with_the_same_weights_and_read_each_others(backend, spec):
    models = []
    for name in ("torch", backend):
        torch.manual_seed(0)
        models.append(SequenceModel(spec, ModelConfig(), name))
    plain, other = (model.state_dict() for model in models)
    assert list(plain) == list(other)
    assert all(torch.equal(plain[name], other[name]) for name in plain)
    models[0].load_state_dict(other)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize(("count", "length"), [(1, 5), (7, 64), (32, 256), (9, 2000), (3, 9000)])
def test_micro_batches_are_all_windows_in_their_order(backend, bfloat16, count, length):
    transformer = BACKENDS.load(backend)(16, 1, 2, 64)
    split = transformer.micro_batches(count, length, bfloat16)
    assert (split[0].start, split[-1].stop) == (0, count)
    assert all(one.stop == other.start for one, other in pairwise(split))
    assert all(part.start < part.stop for part in split)


@pytest.mark.slow
def test_the_package_runs_without_the_folder_of_compiled_loops_and_its_registry_line(tmp_path):
    for name in ("ad", "envs", "scripts"):
        ignored = shutil.ignore_patterns("__pycache__", "kernels")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    registry = tmp_path / "ad" / "registry.py"
    lines = registry.read_text().splitlines(keepends=True)
    kept = [line for line in lines if "kernels" not in line]
    assert len(lines) - len(kept) == 1
    registry.write_text("".join(kept))
    words = ["--config_path", ROOT / "configs" / "smoke.yaml", "--root", tmp_path]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "scripts.run", *map(str, words)]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    (results,) = (tmp_path / "logs").glob("*/results.json")
    assert json.loads(results.read_text())["evaluated_on"]["backend"] == "torch"
