"""The memory of a model, reckoned from its file."""

import subprocess
import sys
from pathlib import Path

import msgspec

from engine_worker.placement import layers
from engine_worker.reckon import answer
from gpufc.config import ModelConfig
from gpufc.reckoning import Question, Reckoning

GIB = 1 << 30


def asked(
    path: Path, *, n_ctx: int = 4096, host_bytes: int = 16 * GIB, gpus: tuple[int, ...] = ()
) -> Question:
    config = ModelConfig(model_path=str(path), n_ctx=n_ctx)
    return Question(config=config, n_running=10, host_bytes=host_bytes, device_bytes=gpus)


def test_a_model_on_the_host_takes_its_cells_and_maps_its_file(model_path: Path) -> None:
    found = answer(asked(model_path))
    smaller = answer(asked(model_path, n_ctx=512))
    assert not found.error
    assert found.n_gpu_layers == found.device_bytes == 0
    assert found.mapped_bytes == model_path.stat().st_size
    assert found.n_cells >= 4096
    assert found.host_bytes > smaller.host_bytes > found.host_bytes // 20
    assert found.least_host_bytes < found.host_bytes


def test_on_a_device_with_room_all_layers_lie_there(model_path: Path) -> None:
    found = answer(asked(model_path, gpus=(8 * GIB,)))
    assert found.n_gpu_layers == found.n_layers > 0
    assert model_path.stat().st_size // 2 < found.device_bytes < 8 * GIB
    assert found.host_bytes < answer(asked(model_path)).host_bytes


def test_what_does_not_fit_on_a_device_stays_on_the_host(model_path: Path) -> None:
    found = answer(asked(model_path, gpus=(600 << 20,)))
    assert (found.n_gpu_layers, found.device_bytes) == (0, 0)
    assert found.host_bytes == answer(asked(model_path)).host_bytes


def test_so_many_layers_as_are_configured_lie_on_the_device(model_path: Path) -> None:
    config = ModelConfig(model_path=str(model_path), n_gpu_layers=10)
    question = Question(config=config, n_running=10, host_bytes=16 * GIB, device_bytes=(8 * GIB,))
    found = answer(question)
    assert found.n_gpu_layers == 10
    assert 0 < found.device_bytes < answer(asked(model_path, gpus=(8 * GIB,))).device_bytes


def test_each_device_keeps_a_reserve(model_path: Path) -> None:
    one = answer(asked(model_path, gpus=(8 * GIB,)))
    two = answer(asked(model_path, gpus=(4 * GIB, 4 * GIB)))
    assert one.n_gpu_layers == two.n_gpu_layers
    assert two.device_bytes == one.device_bytes + layers.GPU_RESERVE_BYTES
    none = answer(asked(model_path, gpus=(500 << 20, 500 << 20)))
    assert (none.n_gpu_layers, none.device_bytes) == (0, 0)


def test_too_little_memory_and_broken_files_are_told_apart(
    model_path: Path, tmp_path: Path
) -> None:
    short = answer(asked(model_path, host_bytes=1 << 20))
    assert short.lacks_memory
    assert "KV cache" in short.error
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(100))
    found = answer(asked(broken))
    assert found.error
    assert not found.lacks_memory


def test_the_command_answers_one_question_without_llama_cpp(model_path: Path) -> None:
    code = (
        "import sys, engine_worker.reckon as reckon\n"
        "reckon.main()\n"
        "assert 'llama_cpp' not in sys.modules\n"
    )
    question = asked(model_path)
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=msgspec.json.encode(question),
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert msgspec.json.decode(done.stdout, type=Reckoning) == answer(question)
