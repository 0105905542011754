from pathlib import Path

import pytest

from engine_worker import cells
from engine_worker.gguf_header import GgufHeader, Value
from gpufc.errors import ModelLoadError

MIB = 1 << 20


def header(**metadata: Value) -> GgufHeader:
    named = {f"llama.{key.replace('__', '.')}": value for key, value in metadata.items()}
    return GgufHeader(
        metadata={"general.architecture": "llama", **named},
        n_tensors=1,
        header_bytes=0,
        file_bytes=0,
        parts=(),
    )


def test_bytes_of_a_cell_are_layers_times_heads_times_both_dimensions() -> None:
    smollm2 = header(
        block_count=30,
        embedding_length=576,
        attention__head_count=9,
        attention__head_count_kv=3,
    )
    assert cells.bytes_per_cell(smollm2) == 30 * 3 * (64 + 64) * 2


def test_heads_may_differ_by_layer_and_dimensions_be_given() -> None:
    hybrid = header(
        block_count=3,
        embedding_length=64,
        attention__head_count=4,
        attention__head_count_kv=(0, 2, 0),
        attention__key_length=8,
        attention__value_length=4,
    )
    assert cells.bytes_per_cell(hybrid) == 2 * 12 * 2


@pytest.mark.parametrize(
    ("n_ctx", "n_running", "available", "expected"),
    [
        (1000, 2, 100_000 * MIB, 2048),  # all that can be used
        (4096, 100, 100_000 * MIB, 23_552),  # 512 MiB are enough
        (65_536, 100, 100_000 * MIB, 131_072),  # but two whole contexts always
        (4096, 100, 400 * MIB, 7424),  # 40 % of the memory
        (4096, 100, 120 * MIB, 4096),  # one context, however little there is
    ],
)
def test_cells_on_a_host(n_ctx: int, n_running: int, available: int, expected: int) -> None:
    fitted = cells.fit_cells(
        n_ctx=n_ctx,
        n_running=n_running,
        cell_bytes=23_040,
        available_bytes=available,
        on_gpu=False,
    )
    assert fitted == expected


def test_on_a_gpu_four_fifths_of_the_free_memory_are_used() -> None:
    fitted = cells.fit_cells(
        n_ctx=4096, n_running=100, cell_bytes=MIB, available_bytes=10_000 * MIB, on_gpu=True
    )
    assert fitted == cells.round_up(8000)


def test_a_context_that_does_not_fit_says_how_much_it_needs_and_what_to_set() -> None:
    with pytest.raises(
        ModelLoadError, match=r"4,096 cells needs 4.0 GiB, and 900 MiB .* smaller n_ctx"
    ):
        cells.fit_cells(
            n_ctx=4096, n_running=1, cell_bytes=MIB, available_bytes=1000 * MIB, on_gpu=False
        )


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
    assert cells.available_memory(*system) == 600_000


def test_unreadable_limits_do_not_limit(tmp_path: Path) -> None:
    assert cells.available_memory(*fake_system(tmp_path, {})) == 1 << 30
    garbage = fake_system(tmp_path, {"proc/meminfo": "MemAvailable: lots\n"})
    assert cells.available_memory(*garbage) == 1 << 30


def test_a_cpu_quota_bounds_the_cores(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/\n", "cgroup/cpu.max": "50000 100000\n"}
    assert cells.usable_cores(*fake_system(tmp_path, files)) == 1
    assert cells.usable_cores() >= 1
