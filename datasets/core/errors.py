"""The ways a command can end badly, each with one line for the reader."""

from __future__ import annotations

import errno


class OrbitError(Exception):
    """Base of every error orbit4d raises on purpose. Its text is one line: the input, and the fix."""

    exit_code = 1


class InputError(OrbitError):
    """The request cannot be served as asked: a missing path, a wrong flag, another configuration (exit 2)."""

    exit_code = 2


class WorkError(OrbitError):
    """The request was good, the work failed: a corrupt dataset, a crashed fleet, a full disk (exit 1)."""

    exit_code = 1


class StorageFault(OrbitError):
    """Storage cannot be used now, whatever is stored: a full disk, lost credentials, an outage, throttling.

    A fault of the run and never of the asset in hand: it is waited out, and costs no attempt.
    """


class StorageRefused(InputError, StorageFault):
    """The place or the permission is not there: no such bucket, no credentials, access denied (exit 2)."""


class DeniedInput(StorageRefused):
    """One file of the input may not be read; where others may, it is at fault and not the credentials."""


class StorageFailed(WorkError, StorageFault):
    """The place is right and does not work at the time: a full disk, an outage, throttling (exit 1)."""


def storage_fault(where: str, error: Exception, remote: bool = True) -> StorageFault:
    """The fault that an exception of a file system, or of a cloud client, stands for.

    `where` says what could not be done, as in `cannot write s3://bucket/key`.
    """
    if isinstance(error, OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return StorageFailed(f"{where}: the disk is full; free space and run the same command again")
        if isinstance(error, PermissionError | NotADirectoryError) or error.errno == errno.EROFS:
            fix = "check the credentials" if remote else "choose a place you may use"
            return StorageRefused(f"{where}: {error.strerror or error}; {fix}")
        return StorageFailed(f"{where}: {error}")
    # Cloud clients raise exceptions of their own (no credentials, no such bucket, no route).
    return StorageRefused(f"{where}: {error}; check the address and the credentials")
