"""The two ways a command can end badly, each with one line for the reader."""


class OrbitError(Exception):
    """Base of every error orbit4d raises on purpose. Its text is one line: the input, and the mend."""

    exit_code = 1


class InputError(OrbitError):
    """The request cannot be served as asked: a missing path, a wrong flag, another configuration (exit 2)."""

    exit_code = 2


class WorkError(OrbitError):
    """The request was good, the work failed: a corrupt dataset, a crashed fleet, a full disk (exit 1)."""

    exit_code = 1
