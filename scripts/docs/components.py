"""Components as `ad new` writes them, for the pages that say how to add one."""

import tempfile
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from ad.scaffold import new


def written(site: Path, kind: str) -> str:
    """Return the file of a component of a kind, and its test, as Markdown."""
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()):
        new(kind, f"my_{kind}", Path(folder))
        files = {path.name: path.read_text("utf-8") for path in Path(folder).glob("*.py")}
    test = files[f"test_my_{kind}.py"].rstrip().replace("\n", "\n    ")
    return (
        f'```python title="mine/my_{kind}.py"\n{files[f"my_{kind}.py"]}```\n\n'
        f'??? note "Its test: mine/test_my_{kind}.py"\n\n    ```python\n    {test}\n    ```'
    )
