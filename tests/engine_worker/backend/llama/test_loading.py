"""What is decided before a model is loaded, and tried again after: over GPUs that do not exist."""

import ctypes
import logging
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine_worker import host
from engine_worker.backend.llama.computing import AtOnce
from engine_worker.backend.llama.embedder_loading import SecondContext, Shape
from engine_worker.backend.llama.loading import Loaded, Loader
from engine_worker.backend.llama.log import LlamaLog
from engine_worker.placement.ceiling import DeviceCeiling
from gpufc.config import ModelConfig, Replay
from gpufc.errors import EngineUnavailable, MemoryShort, ModelLoadError
from gpufc.facts import EngineDevice
from tests.engine_worker.model_file.gguf_files import gguf, pair, tensor, text, u32
from tests.fakes.llama_bindings import FakeLlama

MIB = 1 << 20
N_LAYERS = 8
LAYER_MIB = 100

Load = Callable[..., tuple[Loaded, FakeLlama]]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Eight layers of 100 MiB, of which no byte is written."""
    numbers = {
        "llama.block_count": N_LAYERS,
        "llama.embedding_length": 64,
        "llama.attention.head_count": 1,
        "llama.context_length": 4096,
    }
    pairs = [pair("general.architecture", 8, text("llama"))]
    pairs += [pair(key, 4, u32(value)) for key, value in numbers.items()]
    size = LAYER_MIB * MIB
    layers = [tensor(f"blk.{n}.ffn_up.weight", (size // 4,), 0, n * size) for n in range(N_LAYERS)]
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf(pairs, layers))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + N_LAYERS * size)
    return path


@pytest.fixture
def load(model: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Load the model with GPUs that have so much free memory, and are as `fake` says."""

    def run(
        *free_mib: int,
        fake: dict[str, Any] | None = None,
        n_sequences: int = 4,
        ceiling: DeviceCeiling | None = None,
        context_mib: int = 0,
        **config: Any,
    ) -> tuple[Loaded, FakeLlama]:
        def devices(n_layers: int) -> tuple[EngineDevice, ...]:
            taken = n_layers * LAYER_MIB // max(1, len(free_mib))
            taken += context_mib * bool(llama.contexts)
            return tuple(
                EngineDevice(
                    name=f"CUDA{number}",
                    description="",
                    kind="gpu",
                    memory_free_bytes=(free - taken) * MIB,
                    memory_total_bytes=80_000 * MIB,
                )
                for number, free in enumerate(free_mib)
            )

        log = LlamaLog()
        llama = FakeLlama(log, devices, **(fake or {}))
        for name in ("known_devices", "with_memory"):
            where = f"engine_worker.backend.llama.used_devices.{name}"
            monkeypatch.setattr(where, getattr(llama, name))
        wanted = {"model_path": str(model), "n_ctx": 1024, **config}
        given = msgspec.convert(wanted, ModelConfig)
        try:
            loader = Loader(llama, "v", log, given, n_sequences, lambda _: None, ceiling=ceiling)
            return loader.load(), llama
        except ModelLoadError:
            assert llama.open == 0
            raise

    return run


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_model_that_fits_goes_to_the_gpu_whole(
    load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    loaded, llama = load(8000)
    assert loaded.facts.n_gpu_layers == N_LAYERS == llama.tried[0]
    assert loaded.facts.asynchronous
    assert loaded.facts.device_bytes == N_LAYERS * LAYER_MIB * MIB
    assert warnings(caplog) == []


def test_without_a_gpu_nothing_is_said_and_the_host_has_it(
    load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    loaded, llama = load()
    assert (loaded.facts.n_gpu_layers, llama.tried) == (0, [0])
    assert not loaded.facts.asynchronous
    assert warnings(caplog) == []


def test_layers_that_will_not_fit_are_not_tried(
    load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    loaded, llama = load(512 + 350)
    assert loaded.facts.n_gpu_layers == 3
    assert llama.tried == [3]
    (line,) = warnings(caplog)
    assert line.startswith("n_gpu_layers_reduced from=8 to=3 reason=4 layers on the GPU need 4")


def test_layers_that_did_not_fit_after_all_are_fewer_the_next_time(
    load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    loaded, llama = load(8000, fake={"weights_fit": 5})
    assert llama.tried == [8, 6, 4]
    assert loaded.facts.n_gpu_layers == 4
    assert len(warnings(caplog)) == 4  # two of llama.cpp's own
    assert any("from=8 to=6" in line and "CUDA0 buffer" in line for line in warnings(caplog))


def test_a_context_that_finds_no_device_memory_takes_layers_away_too(load: Load) -> None:
    loaded, llama = load(
        8000, fake={"context_fits": 0, "failure": "failed to allocate buffer for kv cache"}
    )
    assert llama.tried == [8, 6, 4, 3, 2, 1, 0]
    assert loaded.facts.n_gpu_layers == 0
    assert llama.open == 1


def test_what_is_not_for_lack_of_memory_is_not_tried_again(load: Load) -> None:
    with pytest.raises(ModelLoadError, match="tensor 'x' is missing") as caught:
        load(8000, fake={"weights_fit": 5, "failure": "tensor 'x' is missing"})
    assert not isinstance(caught.value, MemoryShort)


def test_fewer_layers_than_must_be_are_an_error_that_says_what_is_short(load: Load) -> None:
    with pytest.raises(MemoryShort, match="4 layers on the GPU need 4") as caught:
        load(512 + 350, min_gpu_layers=4)
    assert caught.value.on_device
    assert caught.value.needed_bytes - caught.value.available_bytes > 0
    with pytest.raises(MemoryShort, match="CUDA0 buffer"):
        load(8000, min_gpu_layers=999, fake={"weights_fit": 7})
    with pytest.raises(ModelLoadError, match=r"min_gpu_layers is 2, and .* no GPU"):
        load(min_gpu_layers=2)


def test_fewer_layers_may_be_asked_for(load: Load) -> None:
    loaded, llama = load(8000, n_gpu_layers=2)
    assert (loaded.facts.n_gpu_layers, llama.tried) == (2, [2])
    assert load(8000, n_gpu_layers=0)[0].facts.n_gpu_layers == 0


def test_devices_that_are_not_used_are_not_asked_for_their_memory(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To ask takes half a GiB of a GPU for as long as the worker lives."""
    monkeypatch.setattr(
        "engine_worker.backend.llama.parameters.device_handles",
        lambda _, names: (ctypes.c_void_p * (len(names) + 1))(),
    )
    for config in ({"devices": "CUDA1"}, {"split_mode": "none", "main_gpu": 1}):
        loaded, llama = load(8000, 8000, **config)
        assert llama.asked == {"CUDA1"}
        memory = {one.name: one.memory_total_bytes for one in loaded.facts.devices}
        assert memory == {"CUDA0": 0, "CUDA1": 80_000 * MIB}
    assert load(8000, 8000)[1].asked == {"CUDA0", "CUDA1"}


def limit(mib: int) -> DeviceCeiling:
    return DeviceCeiling(mib * MIB)


def test_a_limit_takes_layers_from_a_gpu_with_room(
    load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    loaded, llama = load(80_000, ceiling=limit(512 + 350))
    assert (loaded.facts.n_gpu_layers, llama.tried) == (3, [3])
    assert loaded.facts.bytes_by_device == {"CUDA0": 3 * LAYER_MIB * MIB}
    assert warnings(caplog)[0].startswith("n_gpu_layers_reduced from=8 to=3")
    assert load(80_000, ceiling=limit(80_000))[0].facts.n_gpu_layers == N_LAYERS


def test_under_a_limit_a_model_lies_on_more_gpus_and_fills_them_alike(load: Load) -> None:
    """llama.cpp would spread it by what is free."""
    loaded, llama = load(80_000, 8_000, ceiling=limit(512 + 450))
    assert loaded.facts.n_gpu_layers == N_LAYERS
    first, second, *rest = llama.models[-1].tensor_split
    assert first == second == 450 * MIB
    assert not any(rest)
    assert loaded.facts.bytes_by_device == {"CUDA0": 400 * MIB, "CUDA1": 400 * MIB}
    assert loaded.facts.device_bytes == 800 * MIB
    assert load(80_000, ceiling=limit(512 + 450))[0].facts.n_gpu_layers == 4
    assert not hasattr(load(80_000, 8_000)[1].models[-1], "tensor_split")


def test_the_shares_of_the_operator_hold_under_a_limit(load: Load) -> None:
    loaded, llama = load(80_000, 80_000, tensor_split="3,1", ceiling=limit(512 + 450))
    assert list(llama.models[-1].tensor_split)[:2] == [3, 1]
    assert loaded.facts.n_gpu_layers == 5  # 600 MiB, of which three quarters are 450


def test_the_cache_has_what_the_limit_leaves_after_the_weights(load: Load) -> None:
    many = {"n_sequences": 256, "n_ctx": 4096}
    whole, _ = load(80_000, **many)
    assert not whole.facts.unified  # streams of 2 GiB
    loaded, llama = load(80_000, **many, ceiling=limit(2048))
    assert loaded.facts.n_gpu_layers == N_LAYERS
    assert loaded.facts.unified
    (context,) = llama.contexts
    room = (2048 - 512 - N_LAYERS * LAYER_MIB) * MIB
    # 2 KiB a cell, and as much again and more for the mask
    assert 4096 < context.n_ctx < room // 2048
    assert context.n_ctx < whole.facts.kv_cells // 4


def test_a_limit_too_small_for_the_layers_that_must_be_is_refused_in_figures(load: Load) -> None:
    with pytest.raises(MemoryShort, match=r"8 layers on the GPU need .* and 350 MiB") as caught:
        load(80_000, min_gpu_layers=8, ceiling=limit(512 + 350))
    assert caught.value.on_device
    assert caught.value.available_bytes == 350 * MIB
    loaded, _ = load(80_000, ceiling=limit(0))
    assert loaded.facts.n_gpu_layers == 0


@pytest.mark.parametrize(("context_mib", "n_lines"), [(400, 0), (800, 1)])
def test_buffers_beyond_the_limit_are_told(
    load: Load, caplog: pytest.LogCaptureFixture, context_mib: int, n_lines: int
) -> None:
    load(80_000, ceiling=limit(512 + 850), context_mib=context_mib)
    lines = [f"device_limit_exceeded device=CUDA0 taken={1600 * MIB} limit={1362 * MIB}"]
    assert warnings(caplog) == lines * n_lines


def test_a_draft_model_of_the_process_counts(load: Load) -> None:
    shared = limit(512 + 850)
    draft, _ = load(80_000, n_gpu_layers=3, ceiling=shared)
    # the draft stays: 300 MiB less are free at the next load's first look
    loaded, _ = load(80_000 - 300, ceiling=shared)
    assert (draft.facts.n_gpu_layers, loaded.facts.n_gpu_layers) == (3, 5)
    assert loaded.facts.device_bytes == 800 * MIB


@pytest.mark.parametrize(("left", "opens"), [(None, True), (MIB, False), (64 * MIB, True)])
def test_the_context_for_embeddings_keeps_within_what_is_left(
    load: Load, left: int | None, opens: bool
) -> None:
    loaded, llama = load(8000)
    context = SecondContext(
        llama,
        LlamaLog(),
        ModelConfig(),
        loaded.model,
        AtOnce(),
        Shape(128, 4096, True),
        on_gpu=True,
        whole=True,
        cell_bytes=2048,
        device_room_bytes=left,
    )
    with nullcontext() if opens else pytest.raises(EngineUnavailable, match="device memory"):
        context.open()
    assert len(llama.contexts) == 1 + opens


def test_types_threads_and_split_reach_llama_cpp(load: Load) -> None:
    _, llama = load(8000, cache_type_k="q8_0", cache_type_v="f16", n_threads=3, n_threads_batch=5)
    (context,) = llama.contexts
    assert (context.type_k, context.type_v) == (8, 1)
    assert (context.n_threads, context.n_threads_batch) == (3, 5)


@pytest.mark.parametrize(
    ("gpus", "config", "threads"),
    [
        ((), {}, (15, 16)),
        ((), {"n_threads": 3}, (3, 3)),
        ((), {"n_threads_batch": 5}, (15, 5)),
        ((8000,), {}, (1, 1)),
    ],
)
def test_threads_are_those_of_the_cores_unless_a_gpu_computes(
    load: Load,
    monkeypatch: pytest.MonkeyPatch,
    gpus: tuple[int, ...],
    config: dict[str, int],
    threads: tuple[int, int],
) -> None:
    monkeypatch.setattr(host, "usable_cores", lambda: 16)
    _, llama = load(*gpus, **config)
    (context,) = llama.contexts
    assert (context.n_threads, context.n_threads_batch) == threads


@pytest.mark.parametrize(
    ("gpus", "config", "expected"),
    [
        ((), {}, "AUTO"),
        ((8000,), {}, "AUTO"),
        ((), {"flash_attention": "on"}, "ENABLED"),
        ((8000,), {"flash_attention": "off"}, "DISABLED"),
        ((), {"cache_type_v": "q8_0"}, "ENABLED"),
        ((), {"cache_type_k": "q8_0"}, "DISABLED"),
        ((), {"replay": Replay.EXACT}, "DISABLED"),
        ((8000,), {"replay": Replay.EXACT}, "AUTO"),
        ((), {"cache_type_k": "bf16", "cache_type_v": "bf16"}, "DISABLED"),
        ((), {"cache_type_k": "f32"}, "DISABLED"),
        ((), {"cache_type_k": "f32", "cache_type_v": "f32"}, "DISABLED"),
        ((8000,), {"cache_type_k": "q8_0"}, "AUTO"),
    ],
)
def test_flash_attention_is_for_types_that_it_is_fast_with(
    load: Load, gpus: tuple[int, ...], config: dict[str, str], expected: str
) -> None:
    _, llama = load(*gpus, **config)
    (context,) = llama.contexts
    assert context.flash_attn_type == f"LLAMA_FLASH_ATTN_TYPE_{expected}"


def test_the_fingerprint_is_that_of_what_was_obtained(load: Load) -> None:
    def print_of(**config: Any) -> str:
        return load(**config)[0].facts.fingerprint

    plain = print_of()
    assert print_of(n_threads=1) == plain
    assert print_of(cache_type_k="q8_0") != plain
    assert print_of(cache_type_v="q8_0") != plain
    assert print_of(flash_attention="on") != print_of(flash_attention="off")


class FakeFinder:
    """A finder in the graph that records its calls."""

    def __init__(self) -> None:
        self.attached_to: list[Any] = []
        self.is_closed = False

    def attach(self, params: Any) -> None:
        self.attached_to.append(params)

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> list[FakeFinder]:
    """A finder is offered for each context with all layers on devices."""
    made: list[FakeFinder] = []

    def offer(_bindings: Any, _n_vocab: int, _n_sequences: int, *, whole: bool) -> Any:
        made.extend([FakeFinder()] if whole else [])
        return (made[-1],) if whole else ()

    monkeypatch.setattr("engine_worker.backend.llama.loading.graph_finders", offer)
    return made


def test_a_finder_is_attached_to_the_context_before_it_is_made(
    load: Load, offered: list[FakeFinder]
) -> None:
    loaded, llama = load(8000)
    (finder,) = offered
    assert loaded.graph_finders == (finder,)
    assert finder.attached_to == [llama.contexts[-1]]
    assert not finder.is_closed


@pytest.mark.parametrize("free_mib", [(), (512 + 350,)])
def test_finders_hear_whether_all_layers_are_on_devices(
    load: Load, offered: list[FakeFinder], free_mib: tuple[int, ...]
) -> None:
    loaded, _ = load(*free_mib)
    assert loaded.graph_finders == ()
    assert offered == []


def test_the_finders_of_a_context_that_failed_are_closed(
    load: Load, offered: list[FakeFinder]
) -> None:
    lacking = {"context_fits": 5, "failure": "failed to allocate buffer for kv cache"}
    loaded, _ = load(8000, fake=lacking)
    assert [one.is_closed for one in offered] == [True]
    assert loaded.graph_finders == ()
