"""Jobs in a SLURM cluster by submitit, as an array; or on this machine, to try it out.

SLURM signals a job before its time limit. The job then stops its verb, which saves its state, and
is queued again; the same command resumes from the checkpoint of the run.
"""

import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ad.config.fields import field
from ad.errors import MachineError
from ad.sweeps.launchers.base import LOST, JobSettings, Launcher

if TYPE_CHECKING:
    from submitit import Executor
    from submitit import Job as SubmittedJob
    from submitit.helpers import DelayedSubmission

SIGNAL_SECONDS = 90  # from the signal to the time limit
MAX_REQUEUES = 100  # of a job that reaches its time limit


@dataclass(frozen=True)
class Settings(JobSettings):
    """Settings of the launcher submitit."""

    cluster: str = field("auto", choices=("auto", "slurm", "local", "debug"))
    """where jobs run; auto: in SLURM if there is one, otherwise on this machine"""
    minutes: int = field(240, at_least=1)
    """time limit of a job, after which it is queued again"""
    cpus: int = field(2, at_least=1)
    """CPU cores of a job"""
    gpus: int = field(0, at_least=0)
    """GPUs of a job"""
    parallel: int = field(256, at_least=1)
    """jobs that may run at the same time"""
    options: dict = field({})
    """further options of sbatch, e.g. {partition: gpu, account: lab, mem: 8G}"""


@dataclass
class Job:
    """A command as submitit runs it: a call returns the exit code."""

    command: list[str]
    process: subprocess.Popen | None = None

    def __call__(self) -> int:
        """Run the command to its end."""
        self.process = subprocess.Popen(self.command, preexec_fn=_ignore_signals)
        try:
            return self.process.wait()
        except BaseException:
            self.stop()
            raise

    def checkpoint(self) -> "DelayedSubmission":
        """Stop the command, which saves its state, and return the job that is queued instead."""
        from submitit.helpers import DelayedSubmission

        self.stop()
        return DelayedSubmission(Job(self.command))

    def stop(self) -> None:
        """Terminate the command and wait for its end.

        This may run inside the handler of a signal that interrupted `Popen.wait`, which must not
        be called again there. Does nothing before the command is started.
        """
        if self.process is None:
            return
        self.process.terminate()
        with suppress(ChildProcessError):  # it had ended
            os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)


class Submitit(Launcher[Settings]):
    """Submit the jobs as one array, and wait for them. If this process is killed, they go on."""

    Settings = Settings
    package = "submitit"

    @property
    def output(self) -> str:
        """The folder of submitit's logs."""
        return f"in {self.folder}"

    def run(self, commands: Sequence[list[str]]) -> list[int]:
        """Run the commands as the elements of an array. Raises MachineError if SLURM refuses it."""
        try:
            executor = self._executor()
            with executor.batch():
                jobs = [executor.submit(Job(command)) for command in commands]
        except RuntimeError as error:  # there is no SLURM, or sbatch failed
            text = " ".join(str(error).split())
            raise MachineError(f"--launcher submitit cannot submit the jobs: {text}") from error
        try:
            return [_exit_code(job) for job in jobs]
        except BaseException:
            for job in jobs:
                job.cancel()
            raise

    def _executor(self) -> "Executor":
        import submitit

        own = self.settings
        times = {f"{name}_max_num_timeout": MAX_REQUEUES for name in ("local", "slurm")}
        executor = submitit.AutoExecutor(
            self.folder, None if own.cluster == "auto" else own.cluster, **times
        )
        executor.update_parameters(
            name=self.name,
            timeout_min=own.minutes,
            cpus_per_task=own.cpus,
            gpus_per_node=own.gpus,
            stderr_to_stdout=True,
            slurm_array_parallelism=own.parallel,
            slurm_signal_delay_s=SIGNAL_SECONDS,
            slurm_additional_parameters=own.options,
        )
        return executor


def _exit_code(job: "SubmittedJob") -> int:
    from submitit.core.utils import UncompletedJobError

    try:
        return job.result()
    except UncompletedJobError:
        return LOST


def _ignore_signals() -> None:
    """Ignore the signals of a time limit, which SLURM sends to all processes of a job.

    `Job.checkpoint` tells the verb to stop.
    """
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
