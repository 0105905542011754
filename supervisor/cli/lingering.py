"""Whether a detached front loses its runtime folder when its user logs out.

systemd-logind removes a user's `/run/user/UID` with the last session, unless the user lingers
(loginctl(1)). The front serves on, but no command finds it any more.
"""

import os
import pwd
from collections.abc import Mapping
from pathlib import Path

USERS = Path("/run/user")
LINGERING = Path("/var/lib/systemd/linger")
"""Has a file for each user who lingers (systemd-logind's own record)."""


def note(
    folder: Path, environ: Mapping[str, str], *, users: Path = USERS, lingering: Path = LINGERING
) -> str | None:
    """A line for a front that is started in the background of a login session; None where its
    folder stays."""
    if "XDG_SESSION_ID" not in environ or not folder.is_relative_to(users / str(os.getuid())):
        return None
    if (lingering / _user_name()).exists():
        return None
    state = environ.get("XDG_STATE_HOME")
    kept = Path(state) if state and os.path.isabs(state) else Path.home() / ".local" / "state"
    return (
        f"{folder} is removed when you log out, and no command finds the front then: "
        f"`loginctl enable-linger` keeps it, or start with --runtime-dir {kept / 'gpufc'}"
    )


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
