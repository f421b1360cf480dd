"""Jobs as processes on this machine."""

import subprocess
from collections.abc import Sequence

from ad.sweeps.launchers.base import Launcher


class Local(Launcher):
    """Start all jobs at once, and wait for them. If this process is killed, they go on."""

    def run(self, commands: Sequence[list[str]]) -> list[int]:
        """Run the commands side by side; their output is this process's."""
        jobs = []
        try:
            for command in commands:
                # Its own process group: Ctrl-C reaches it through this process, and only once.
                jobs.append(subprocess.Popen(command, process_group=0))
            return [job.wait() for job in jobs]
        except BaseException:
            for job in jobs:
                job.terminate()
            for job in jobs:
                job.wait()
            raise
