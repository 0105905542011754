import os
import time
from pathlib import Path

import pytest

from engine_worker import host


def fake_system(tmp_path: Path, files: dict[str, str]) -> tuple[Path, Path]:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "proc", tmp_path / "cgroup"


def test_memory_is_the_least_of_the_system_and_all_cgroups_above(tmp_path: Path) -> None:
    system = fake_system(
        tmp_path,
        {
            "proc/meminfo": "MemTotal: 999 kB\nMemAvailable:  5000 kB\n",
            "proc/self/cgroup": "0::/outer/inner\n",
            "cgroup/outer/memory.max": "2000000\n",
            "cgroup/outer/memory.current": "1500000\n",
            "cgroup/outer/memory.stat": "anon 5\ninactive_file 100000\n",
            "cgroup/outer/inner/memory.max": "max\n",
            "cgroup/outer/inner/memory.current": "7\n",
        },
    )
    assert host.available_memory(*system) == 600_000


def test_unreadable_limits_do_not_limit(tmp_path: Path) -> None:
    assert host.available_memory(*fake_system(tmp_path, {})) == 1 << 30
    garbage = fake_system(tmp_path, {"proc/meminfo": "MemAvailable: lots\n"})
    assert host.available_memory(*garbage) == 1 << 30


def test_a_cpu_quota_bounds_the_cores(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/\n", "cgroup/cpu.max": "50000 100000\n"}
    assert host.usable_cores(*fake_system(tmp_path, files)) == 1
    assert host.usable_cores() >= 1


def stat(busy: int, cpus: set[int]) -> str:
    """/proc/stat with so many ticks on each core, half of them a hypervisor's."""
    lines = [f"cpu{cpu} {busy // 2} 0 0 999 0 0 0 {busy - busy // 2} 0 0" for cpu in sorted(cpus)]
    return "\n".join(["cpu 1 2 3 4 5 6 7 8 9 10", *lines, "cpu9999 7777 0 0 0 0 0 0 0", "intr 5"])


def test_one_of_many_cores_is_left_to_what_runs_at_each_token() -> None:
    assert [host.decoding_threads(n_cores) for n_cores in (1, 2, 7, 8, 16)] == [1, 2, 7, 7, 15]


def test_cores_used_by_others_are_what_this_process_did_not_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = os.times()
    monkeypatch.setattr(os, "times", lambda: own)
    cpus, ticks = os.sched_getaffinity(0), os.sysconf("SC_CLK_TCK")
    (tmp_path / "stat").write_text(stat(1000, cpus))
    use = host.CoreUse(tmp_path)
    now = time.monotonic()
    assert use.by_others(now) is None
    (tmp_path / "stat").write_text(stat(1000 + 10 * ticks, cpus))
    others, window_s = use.by_others(now + 20.0) or (None, None)
    assert window_s == pytest.approx(20.0, abs=1.0)
    assert others == pytest.approx(len(cpus) / 2, rel=0.1)


@pytest.mark.parametrize(("running", "is_run"), [("1", False), ("2", True), ("", True)])
def test_others_run_where_the_kernel_sees_another_thread_run(
    running: str, is_run: bool, tmp_path: Path
) -> None:
    line = f"\nprocs_running {running}\nprocs_blocked 0" if running else ""
    (tmp_path / "stat").write_text(stat(1000, {0}) + line)
    assert host.CoreUse(tmp_path).others_run() is is_run


def test_a_thread_that_is_over_at_the_next_look_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stat").write_text("procs_running 2")
    monkeypatch.setattr(time, "sleep", lambda _: (tmp_path / "stat").write_text("procs_running 1"))
    assert not host.CoreUse(tmp_path).others_run()


def test_unreadable_figures_show_no_use(tmp_path: Path) -> None:
    use = host.CoreUse(tmp_path)
    others, _ = use.by_others(time.monotonic() + 5.0) or (None, None)
    assert others == 0.0
