"""Can this machine use the storage of a run? Asked by every worker before its first job, and after a fault.

Rights are given to machines: the head of a cluster may have them where its workers have none. A local path
may be a shared disk on one machine and its own on another. Both show in a second, before anything is
rendered.
"""

from __future__ import annotations

import errno
import os
import secrets
import time

from orbit4d.datasets.core.atomic import TEMPORARY
from orbit4d.datasets.core.errors import StorageFailed, StorageFault, StorageRefused, storage_fault
from orbit4d.datasets.core.paths import is_uri
from orbit4d.datasets.core.storage import Store
from orbit4d.render.fleet.settings import StorageCheck

#: Seconds between the tries of a worker that has just started; what lasts longer is no hiccup.
PAUSES = (1.0, 3.0)
_PROBE = b"orbit4d looks whether it can write here"


def check_storage(check: StorageCheck) -> None:
    """Do what a worker must be able to do; raise StorageFault where one of it fails."""
    if check.out:
        _check_out(check.out, check.present)
    if check.source and is_uri(check.source):
        _check_source(check.source)


def _check_out(out: str, present: str) -> None:
    store = Store(out)
    if present and not store.exists(present):
        fix = "check the address" if store.local is None else "mount the same disk on every machine"
        raise StorageRefused(f"{store.path(present)}: is not seen by this worker; {fix}")
    name = f"{TEMPORARY}{secrets.token_hex(6)}-probe"
    try:
        store.put(name, _PROBE)
        found = store.read(name)
        store.delete([name])
    except FileNotFoundError as error:
        raise StorageFailed(f"{out}: a file just written is not there: {error}") from error
    except StorageFault as error:
        error.args = (str(error).replace(f"/{name}", ""),)
        raise
    if found != _PROBE:
        raise StorageFailed(f"{out}: a file reads back as another one than was written")


def _check_source(source: str) -> None:
    from fsspec.core import url_to_fs

    try:
        fs, path = url_to_fs(source)
        fs.cat_file(path, start=0, end=1)
    except FileNotFoundError:
        return  # of one asset; its own job tells
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.EINVAL:
            return  # an empty file has no first byte
        raise storage_fault(f"cannot read {source}", error) from error


def preflight(check: StorageCheck) -> str:
    """'' where a worker that has just started can use the storage, else why not, after a few tries."""
    for pause in (*PAUSES, 0.0):
        try:
            check_storage(check)
            return ""
        except StorageRefused as error:
            # Rights do not come back within seconds.
            return str(error)
        except StorageFault as error:
            why = str(error)
        time.sleep(pause)
    return why


def full_disk(folder: str, n_bytes: int = 1 << 20) -> bool:
    """Whether `folder` takes no further file of `n_bytes`; quotas count, which free space does not show."""
    draft = os.path.join(folder, f"{TEMPORARY}{secrets.token_hex(6)}-probe")
    try:
        with open(draft, "wb") as file:
            file.write(bytes(n_bytes))
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        return True
    finally:
        if os.path.exists(draft):
            os.unlink(draft)
    return False
