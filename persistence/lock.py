"""Tell whether a server is using a store file, in a way that survives `kill -9`.

SQLite's own locks last as long as a transaction, so they can't say that a process will go on with
what it holds in memory. Replacing the file under such a process would lose what it writes next.
The kernel drops a `flock` with its process, so there is nothing to clean up and no stale lock.
"""

import fcntl
import os
from pathlib import Path

from plait.persistence.store import StoreUnavailable


class StoreLock:
    """A lock beside a store file: shared by those who serve from it, exclusive to replace it."""

    def __init__(self, store: Path) -> None:
        self.path = store.with_name(f"{store.name}.lock")
        self._descriptor: int | None = None

    def acquire_shared(self) -> None:
        """Say that the store is in use.

        Raises:
            StoreUnavailable: it is being replaced, or the lock file can't be made.
        """
        if not self._acquire(fcntl.LOCK_SH):
            raise StoreUnavailable(
                f"the store is being replaced ({self.path} is locked)",
                hint="Wait until `plait store restore` is done.",
            )

    def acquire_exclusive(self) -> bool:
        """Return whether nobody uses the store; if so, nobody can begin to until `release`."""
        return self._acquire(fcntl.LOCK_EX)

    def release(self) -> None:
        """Let go. The file stays: removing it would let two processes lock two files."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _acquire(self, kind: int) -> bool:
        assert self._descriptor is None, "a lock is taken once"
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise StoreUnavailable(
                f"the lock file {self.path} can't be opened ({error.strerror})",
                hint="Let the user who runs this write the folder of the store.",
            ) from error
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except OSError as error:
            os.close(descriptor)
            raise StoreUnavailable(
                f"{self.path} can't be locked ({error.strerror})",
                hint="Keep the store on a local disk.",
            ) from error
        self._descriptor = descriptor
        return True
