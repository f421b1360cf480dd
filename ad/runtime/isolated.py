"""Call a function in a child process with limits of memory and time, and without a network.

The limits are for data of strangers that our own code reads: a model that is too large, an
evaluation without an end, a library that fetches what a file names. Linux gives the child a network
of its own, without a connection, where it permits that (`unshare`); an audit hook refuses sockets
of Python in any case. The child is no sandbox: it runs as the same user and can read and write that
user's files, and code that is not Python's passes the hook. What the child starts has its limit of
memory; a process that begins a session of its own outlives the limit of time.
"""

import ctypes
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from ad.errors import (
    ADError,
    ConfigError,
    CorruptError,
    MachineError,
    NumericError,
    is_out_of_memory,
)

MEMORY = 8 * 2**30  # bytes of address space; PyTorch alone takes 2 to 3 GiB
FILE = 2**30  # bytes of a file that the child writes
NEW_USER, NEW_NETWORK = 0x10000000, 0x40000000  # CLONE_NEWUSER and CLONE_NEWNET of Linux
REFUSED = ("socket.__new__", "socket.getaddrinfo", "socket.gethostbyname")  # audit events
ERRORS = {kind.exit_code: kind for kind in (ConfigError, MachineError, CorruptError, NumericError)}


def call_isolated(function: str, arguments: dict, seconds: float, memory: int = MEMORY) -> Any:
    """Return what `function`, "module:function", returns for keyword `arguments`, through JSON.

    `seconds` limit the time, `memory` the bytes of address space. Raises the ADError that the
    function raises, MachineError where the child exceeds a limit or ends before its answer, and
    CorruptError for any other exception, which is what data that nobody checked leads to.
    """
    command = [sys.executable, "-P", "-m", "ad.runtime.isolated", function, str(memory)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    environment |= {"OMP_WAIT_POLICY": "PASSIVE"}  # threads that spin starve on a busy machine
    child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        start_new_session=True,  # whose processes are ended together
    )
    try:
        answer, _ = child.communicate(json.dumps(arguments).encode(), seconds)
    except subprocess.TimeoutExpired:
        raise MachineError(f"it takes more than {seconds:g} s") from None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    if not answer:
        raise MachineError(f"its process ended without an answer (exit code {child.returncode})")
    result = json.loads(answer)
    if "error" in result:
        raise ERRORS.get(result["exit_code"], CorruptError)(result["error"])
    return result["value"]


def has_network() -> bool:
    """Return whether this process has a network with more than its own loopback address."""
    try:
        lines = Path("/proc/self/net/dev").read_text().splitlines()[2:]
    except OSError:
        return True
    return any(line.partition(":")[0].strip() != "lo" for line in lines)


def _main() -> None:
    """Answer on stdout; what the function prints goes to stderr."""
    function, memory = sys.argv[1], int(sys.argv[2])
    _limit(memory)
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        arguments = json.load(sys.stdin)
        module, name = function.split(":")
        result = {"value": getattr(importlib.import_module(module), name)(**arguments)}
    except ADError as error:
        result = {"error": str(error), "exit_code": error.exit_code}
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        too_large = is_out_of_memory(error)
        kind = MachineError if too_large else CorruptError
        text = f"it needs more than {memory / 2**30:g} GiB of memory" if too_large else text
        result = {"error": text, "exit_code": kind.exit_code}
    with answer:
        json.dump(result, answer)


def _limit(memory: int) -> None:
    """Set the limits of this process and of those that it starts; it must have one thread."""
    limits = (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, FILE),
        (resource.RLIMIT_CORE, 0),
    )
    for kind, most in limits:
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))
    libc = ctypes.CDLL(None)
    if hasattr(libc, "unshare") and libc.unshare(NEW_NETWORK):  # only root may, without a new user
        libc.unshare(NEW_USER | NEW_NETWORK)
    sys.addaudithook(_refuse_network)


def _refuse_network(event: str, arguments: tuple) -> None:
    if event in REFUSED:
        raise PermissionError("this process has no network")


if __name__ == "__main__":
    _main()
