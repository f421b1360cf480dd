"""Failures that are expected: each is a sentence for the user and an exit code, no traceback."""


class ADError(Exception):
    """Base of the failures below; `exit_code` is what the command line ends with."""

    exit_code = 1


class ConfigError(ADError):
    """Bad input or configuration; the message names every problem found."""

    exit_code = 2


class MachineError(ADError):
    """The machine is in the way: a full disk, no permission, a missing program or device."""

    exit_code = 3


class CorruptError(ADError):
    """Data on the disk is not what was written."""

    exit_code = 4


class NumericError(ADError):
    """A computation left the finite numbers and could not be brought back."""

    exit_code = 5
