"""The notebook from the installation to a curve: its cells run in turn, without Jupyter."""

import json

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from processes import ROOT

NOTEBOOK = ROOT / "scripts/quickstart.ipynb"


@pytest.fixture
def cells() -> list[dict]:
    """The cells of code, with a small experiment in that of the parameters."""
    content = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return [cell for cell in content["cells"] if cell["cell_type"] == "code"]


def test_the_cells_come_to_the_curve(cells, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(NOTEBOOK.parent)
    monkeypatch.setattr(plt, "show", lambda: None)
    matplotlib.use("Agg")
    names: dict = {}
    for cell in cells:
        text = "".join(cell["source"])
        if "parameters" in cell["metadata"].get("tags", ()):
            text = f"experiment, root = '../configs/smoke.yaml', {str(tmp_path)!r}\n"
            text += "settings = {'source.env_steps': 800, 'threads': 1, 'device': 'cpu'}"
        exec(compile(text, str(NOTEBOOK), "exec"), names)
    run, (line,) = names["run"], names["axes"].lines
    returns = names["evaluation"].returns
    assert len(returns) == len(run.split.held_out_tasks) > 1
    np.testing.assert_array_equal(line.get_ydata(), returns.mean(1).mean(0))
    assert (run.folder / "results.csv").exists() and run.folder.parent.parent == tmp_path
    assert "observation" in capsys.readouterr().out
    plt.close(names["figure"])


def test_it_is_committed_without_output(cells):
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells)
