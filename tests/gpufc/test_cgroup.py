"""Limits of a container: the tightest one on the way up binds."""

from pathlib import Path

import pytest

from gpufc import cgroup


@pytest.fixture
def groups(tmp_path: Path) -> Path:
    root = tmp_path / "cgroup"
    (root / "outer" / "inner").mkdir(parents=True)
    (tmp_path / "membership").write_text("1:cpu:/elsewhere\n0::/outer/inner\n")
    return root


def read(root: Path) -> cgroup.Limits:
    return cgroup.limits(root, root.parent / "membership")


def test_no_limit_files_mean_no_limits(groups: Path) -> None:
    assert read(groups) == cgroup.Limits()


def test_max_is_no_limit(groups: Path) -> None:
    (groups / "outer" / "memory.max").write_text("max\n")
    (groups / "outer" / "cpu.max").write_text("max 100000\n")
    assert read(groups) == cgroup.Limits()


def test_an_ancestors_limit_binds(groups: Path) -> None:
    (groups / "outer" / "memory.max").write_text("1000\n")
    (groups / "outer" / "memory.current").write_text("700\n")
    (groups / "outer" / "memory.stat").write_text("anon 300\ninactive_file 400\n")
    (groups / "outer" / "inner" / "memory.max").write_text("5000\n")
    (groups / "outer" / "cpu.max").write_text("150000 100000\n")
    assert read(groups) == cgroup.Limits(cpus=1.5, memory_bytes=1000, memory_free_bytes=700)


def test_nonsense_is_no_limit(groups: Path) -> None:
    (groups / "outer" / "memory.max").write_text("a lot\n")
    (groups / "outer" / "cpu.max").write_text("\n")
    assert read(groups) == cgroup.Limits()


def test_a_group_that_is_not_mounted_here_leaves_the_root(tmp_path: Path) -> None:
    root = tmp_path / "cgroup"
    root.mkdir()
    (root / "cpu.max").write_text("100000 100000\n")
    (tmp_path / "membership").write_text("0::/host/docker/abc\n")
    assert read(root) == cgroup.Limits(cpus=1.0)
    (tmp_path / "membership").write_text("garbage\n")
    assert cgroup.groups(root, tmp_path / "membership") == [root]


def test_events_come_from_the_innermost_group_that_has_them(groups: Path) -> None:
    (groups / "outer" / "cpu.stat").write_text("usage_usec 9\nthrottled_usec 5\n")
    (groups / "outer" / "memory.events").write_text("max 3\noom 2\noom_kill 1\n")
    (groups / "outer" / "inner" / "memory.events").write_text("oom_kill 0\n")
    found = cgroup.events(groups, groups.parent / "membership")
    assert found == cgroup.Events(throttled_us=5, oom_kills=0)
