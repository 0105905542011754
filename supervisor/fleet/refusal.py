"""Errors by which the system, and not the worker, prevents a start. Pure."""

import errno

BY_SYSTEM = frozenset(
    {
        *(errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM, errno.ENOBUFS),
        *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENOENT, errno.EBUSY),
        *(errno.ENOTDIR, errno.EEXIST, errno.ESTALE),
    }
)
"""No descriptor, process or memory is free, or the folder of sockets and logs is full, read-only,
gone, taken or no folder. Such a refusal says nothing about the worker, and passes without its
doing."""


def is_by_system(error: OSError) -> bool:
    """Whether a start that failed with this error will be possible once the system allows it."""
    return error.errno in BY_SYSTEM
