from pathlib import Path

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
