"""Jobs as tasks of a Ray cluster, or of one that is started on this machine for them."""

import logging
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ad.config.fields import field
from ad.errors import MachineError
from ad.sweeps.launchers.base import LOST, JobSettings, Launcher

if TYPE_CHECKING:
    import ray

RETRIES = 3  # of a task whose worker or machine dies; Ray chooses another one


@dataclass(frozen=True)
class Settings(JobSettings):
    """Settings of the launcher ray."""

    address: str = field("local")
    """address of the cluster, or auto for the one of this machine; local starts one for the jobs"""
    cpus: int = field(1, at_least=1)
    """CPU cores of a job"""
    gpus: int = field(0, at_least=0)
    """GPUs of a job"""


class Ray(Launcher[Settings]):
    """Run the jobs as tasks, on machines that share this folder. They end with this process."""

    Settings = Settings
    package = "ray"

    def run(self, commands: Sequence[list[str]]) -> list[int]:
        """Run each command in a task; Ray passes its output on to this process.

        Raises MachineError if the cluster at `address` cannot be reached.
        """
        import ray

        own = self.settings
        # A cluster of its own has room for all jobs, whatever this machine has.
        cpus = own.jobs * own.cpus if own.address == "local" else None
        try:
            level = logging.WARNING
            ray.init(own.address, include_dashboard=False, logging_level=level, num_cpus=cpus)
        except (ConnectionError, RuntimeError, ValueError) as error:
            text = " ".join(str(error).split())
            raise MachineError(f"--launcher ray cannot reach {own.address}: {text}") from error
        try:
            folder = os.getcwd()
            call = ray.remote(num_cpus=own.cpus, num_gpus=own.gpus, max_retries=RETRIES)(
                lambda command: subprocess.call(command, cwd=folder)
            )
            return [_exit_code(task) for task in [call.remote(one) for one in commands]]
        finally:
            ray.shutdown()


def _exit_code(task: "ray.ObjectRef") -> int:
    import ray.exceptions

    try:
        return ray.get(task)
    except ray.exceptions.RayError:
        return LOST
