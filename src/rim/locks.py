"""One writer at a time."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Generator
from typing import IO, Any

from rim.config import ConfigError

#: What a file system that has no locks says of them.
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)


@contextlib.contextmanager
def alone(file: IO[Any], otherwise: str) -> Generator[None]:
    """Lock an open file against other processes, where the system can.

    Raises:
        ConfigError: another one has it; `otherwise` says so.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(otherwise) from None
    except OSError as error:  # shared file systems without locks
        if error.errno not in _NO_LOCKS:
            raise
    yield  # closing the file ends the lock
