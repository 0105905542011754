"""The fields of `/proc/PID/stat` (proc_pid_stat(5)), which are many and have no names there."""


def stat_fields(pid: int) -> list[bytes]:
    """The fields behind the process's name: its state is the first. Raises `OSError`."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        # the name before the last bracket may contain any byte
        return file.read().rpartition(b")")[2].split()
