"""From a model's file to llama.cpp's model and context: checked, placed, and tried again.

`placement` decides the place of each part; this module carries it out. If a device's memory does
not suffice after all, the next attempt puts fewer layers on it.
"""

import ctypes
import logging
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from msgspec import Struct

from engine_worker import host
from engine_worker.backend.llama import parameters
from engine_worker.backend.llama.adapters import LoadedAdapters, load_adapters
from engine_worker.backend.llama.bindings import (
    Bindings,
    ContextPointer,
    ModelPointer,
    library_of,
)
from engine_worker.backend.llama.computing import Computing, computing_for
from engine_worker.backend.llama.demand import ModelDemand
from engine_worker.backend.llama.embedder import LlamaEmbedder
from engine_worker.backend.llama.embedder_loading import (
    N_INPUTS,
    SecondContext,
    Shape,
    only_embedder,
    shape_beside,
)
from engine_worker.backend.llama.finders import GraphFinder, graph_finders
from engine_worker.backend.llama.log import LlamaLog
from engine_worker.backend.llama.quirks import NO_EMBEDDINGS, ONE_A_PASS
from engine_worker.backend.llama.team import Team, team_for
from engine_worker.backend.llama.used_devices import UsedDevices
from engine_worker.backend.llama.vocabulary import Vocabulary
from engine_worker.backend.port import MAX_SEQUENCES, LoadProgress
from engine_worker.model_file.checked import checked_header
from engine_worker.model_file.description import described
from engine_worker.model_file.fingerprint import fingerprint
from engine_worker.model_file.gguf_header import original_context
from engine_worker.model_file.opened import opened
from engine_worker.model_file.purpose import pooling_of
from engine_worker.placement import cells, layers
from engine_worker.placement.ceiling import DeviceCeiling
from gpufc.adapters import adapter_files
from gpufc.config import FlashAttention, ModelConfig, Speculation
from gpufc.errors import MemoryShort, ModelLoadError
from gpufc.facts import EngineDevice, ModelFacts, Pooling
from gpufc.file_samples import sample_digest

logger = logging.getLogger(__name__)

Devices = tuple[EngineDevice, ...]

_OPENED = re.compile(r"/proc/self/fd/\d+")
"""The name of an opened file in llama.cpp's messages."""


class Loaded(Struct, frozen=True):
    """A model that is ready. Its owner frees the context, then the finders, then the model.

    `new_embedder` makes the embedder. That of a model that generates no text takes the context
    over."""

    model: ModelPointer
    context: ContextPointer
    new_embedder: Callable[[], LlamaEmbedder]
    adapters: LoadedAdapters
    computing: Computing
    team: Team
    graph_finders: tuple[GraphFinder, ...]
    vocabulary: Vocabulary
    facts: ModelFacts


class Loader:
    """Loads one model. The constructor raises `ModelLoadError` for faults that the header shows.

    `version` is the engine's. It goes into the fingerprint, so that replays stay with one version.
    `within` are the places that its files must lie in (`checked_header`). All loaders of a process
    share its `ceiling`.
    """

    def __init__(
        self,
        bindings: Bindings,
        version: str,
        log: LlamaLog,
        config: ModelConfig,
        n_sequences: int,
        on_progress: LoadProgress,
        within: Sequence[str] = (),
        ceiling: DeviceCeiling | None = None,
    ) -> None:
        if not 1 <= n_sequences <= MAX_SEQUENCES:
            raise ModelLoadError(f"{n_sequences} sequences (1 to {MAX_SEQUENCES})")
        self._lc, self._version, self._log = bindings, version, log
        self._config, self._n_sequences = config, n_sequences
        self._on_progress = on_progress
        self._adapters = adapter_files(config.adapters)
        self._header = checked_header(config, within)
        self._model_demand = ModelDemand(config, self._header, n_sequences)
        self._demand = self._model_demand.layers
        self._n_ctx, self._alone = self._model_demand.n_ctx, self._model_demand.alone
        self._ceiling = ceiling or DeviceCeiling()
        self._used = UsedDevices(library_of(bindings), config, self._ceiling)
        self._shares: tuple[float, ...] = ()

    def load(self) -> Loaded:
        """Blocks for seconds to minutes; the GIL is released meanwhile. Raises `ModelLoadError`
        after freeing everything."""
        self._lc.llama_backend_init()
        devices, own = self._used.now(), self._used.taken()
        self._shares = self._used.shares(devices)
        least = min(self._config.min_gpu_layers, self._demand.model.n_layers)
        n_layers = self._fitting_layers(devices, least)
        while True:
            try:
                return self._attempt(devices, n_layers)
            except MemoryShort as err:
                fewer = layers.fewer_layers(n_layers)
                if not err.on_device or not n_layers or fewer < least:
                    raise
                _log_fewer_layers(n_layers, fewer, err)
                self._used.given_back(own)
                n_layers = fewer

    def _room_bytes(self, devices: Devices) -> int:
        return layers.usable_bytes(devices, self._shares)

    def _fitting_layers(self, devices: Devices, least: int) -> int:
        if least and not devices:
            raise ModelLoadError(f"min_gpu_layers is {least}, and llama.cpp has no GPU to use")
        wanted = min(self._config.n_gpu_layers, self._demand.model.n_layers) if devices else 0
        wanted, room = max(wanted, least), self._room_bytes(devices)
        fitting = self._demand.fitting_layers(wanted, room)
        if fitting < wanted:
            needed = self._demand.device_bytes(max(least, fitting + 1))
            short = layers.layers_short(max(least, fitting + 1), needed, room)
            if fitting < least:
                raise short
            _log_fewer_layers(wanted, fitting, short)
        return fitting

    def _attempt(self, devices: Devices, n_layers: int) -> Loaded:
        model = self._load_model(devices, n_layers)
        try:
            # llama.cpp reserves a context's graph with room for the adapters that there are
            adapters = load_adapters(self._lc, self._log, model, self._adapters)
            layout = cells.choose_layout(
                self._demand.wish,
                self._demand.stores(
                    n_layers,
                    device_room=self._room_bytes(self._used.now()),
                    host_room=host.available_memory(),
                ),
            )
            # the vocabulary is read while the context's memory is cleared
            with ThreadPoolExecutor(1) as pool:
                vocab = self._lc.llama_model_get_vocab(model)
                reading = pool.submit(Vocabulary, self._lc, vocab)
                context, finders = self._new_context(model, layout, n_layers)
            vocabulary = reading.result()
        except BaseException:
            self._lc.llama_model_free(model)
            raise
        facts = self._facts(model, context, vocabulary, layout, n_layers)
        _log_placement(facts, self._ceiling.limit_bytes)
        self._on_progress(1.0)
        on_device = facts.asynchronous
        computing = computing_for(beside=facts.computes_beside, on_device=on_device)
        embedder = self._embedder(model, context, computing, vocabulary.n_tokens, n_layers)
        team = team_for(self._lc, self._config, context, on_device=on_device)
        return Loaded(
            *(model, context, embedder, adapters, computing, team, finders, vocabulary, facts)
        )

    def _load_model(self, devices: Devices, n_layers: int) -> ModelPointer:
        lc, path = self._lc, self._config.model_path or ""
        params = parameters.model_parameters(lc, self._config, devices, n_layers, self._shares)
        # this reference keeps the callback alive as long as llama.cpp calls it
        callback = lc.llama_progress_callback(lambda fraction, _: self._report(fraction))
        params.progress_callback = callback
        self._log.clear()
        # a thread that computes keeps its team of threads (see `computing.Beside`), and some
        # processors' formats of weights are computed here
        with opened(self._header.files) as paths, ThreadPoolExecutor(1, "load") as pool:
            parts = (ctypes.c_char_p * len(paths))(*map(os.fsencode, paths))
            model = pool.submit(lc.llama_model_load_from_splits, parts, len(paths), params).result()
        if not model:
            raise self._failure(f"{path} cannot be loaded", on_gpu=n_layers > 0)
        reason = self._unfit(model)
        if reason is not None:
            lc.llama_model_free(model)
            raise ModelLoadError(f"{path} is not a text model ({reason})")
        return model

    def _report(self, fraction: float) -> bool:
        """Report progress; True: go on loading. 1.0 is reported when the context is there too."""
        try:
            self._on_progress(min(fraction, 0.99))
        except Exception:  # a C callback would swallow it and end the loading
            logger.exception("load_progress_failed")
        return True

    def _unfit(self, model: ModelPointer) -> str | None:
        lc = self._lc
        if lc.llama_model_is_diffusion(model):
            return "diffusion"
        if lc.llama_model_has_encoder(model) or not lc.llama_model_has_decoder(model):
            return "it has an encoder"
        if lc.llama_vocab_type(lc.llama_model_get_vocab(model)) == lc.LLAMA_VOCAB_TYPE_NONE:
            return "it has no vocabulary"
        return None

    def _new_context(
        self, model: ModelPointer, layout: cells.Layout, n_layers: int
    ) -> tuple[ContextPointer, tuple[GraphFinder, ...]]:
        lc, on_gpu = self._lc, n_layers > 0
        whole = self._is_whole(n_layers)
        if self._alone is not None:
            return self._embedding_context(model, layout, self._alone, n_layers), ()
        n_vocab = lc.llama_vocab_n_tokens(lc.llama_model_get_vocab(model))
        params = parameters.context_parameters(
            lc,
            self._config,
            layout,
            self._n_sequences,
            sizes=self._model_demand.sizes(on_gpu=on_gpu),
            n_vocab=n_vocab,
            on_gpu=on_gpu,
            whole=whole,
            windowed=lc.llama_model_n_swa(model) > 0,
            hybrid=lc.llama_model_is_hybrid(model),
        )
        finders = graph_finders(lc, n_vocab, self._n_sequences, whole=whole)
        for finder in finders:
            finder.attach(params)
        self._log.clear()
        context = lc.llama_init_from_model(model, params)
        if not context:
            for finder in finders:
                finder.close()
            raise self._no_context(layout, on_gpu=on_gpu)
        return context, finders

    def _embedding_context(
        self, model: ModelPointer, layout: cells.Layout, shape: Shape, n_layers: int
    ) -> ContextPointer:
        params = parameters.embedding_parameters(
            self._lc,
            self._config,
            n_cells=layout.n_cells,
            n_inputs=N_INPUTS,
            n_tokens=shape.n_tokens,
            pooling=pooling_of(self._header),
            flash=self._model_demand.flash_attention(on_gpu=n_layers > 0),
            whole=self._is_whole(n_layers),
        )
        self._log.clear()
        context = self._lc.llama_init_from_model(model, params)
        if not context:
            raise self._no_context(layout, on_gpu=n_layers > 0)
        return context

    def _is_whole(self, n_layers: int) -> bool:
        """Whether all layers are on GPUs."""
        return 0 < n_layers >= self._demand.model.n_layers

    def _no_context(self, layout: cells.Layout, *, on_gpu: bool) -> ModelLoadError:
        return self._failure(
            f"no context of {layout.n_cells:,} KV cells for {self._config.model_path}",
            on_gpu=on_gpu,
        )

    def _beside(self, n_vocab: int) -> Shape:
        return shape_beside(self._n_ctx, n_vocab, self._demand.model.bytes_per_cell)

    def _embedder(
        self,
        model: ModelPointer,
        context: ContextPointer,
        computing: Computing,
        n_vocab: int,
        n_layers: int,
    ) -> Callable[[], LlamaEmbedder]:
        if self._alone is not None:
            pooling = pooling_of(self._header)
            made_of = (self._lc, self._log, model, context, computing, self._alone, pooling)
            return partial(only_embedder, *made_of)
        is_limited = self._ceiling.limit_bytes is not None
        return SecondContext(
            self._lc,
            self._log,
            self._config,
            model,
            computing,
            self._beside(n_vocab),
            on_gpu=n_layers > 0,
            whole=self._is_whole(n_layers),
            cell_bytes=self._demand.model.bytes_per_cell,
            device_room_bytes=self._room_bytes(self._used.now()) if is_limited else None,
        ).open

    def _failure(self, refused: str, *, on_gpu: bool) -> ModelLoadError:
        """The error for a refusal of llama.cpp, with the reason from its log."""
        said = self._log.last_error() or "llama.cpp gives no reason"
        named = _OPENED.sub(lambda _: self._config.model_path or "", said)
        reason = f"{refused}: {named}"
        if on_gpu and self._log.lacked_memory:
            return MemoryShort(reason, on_device=True)
        return ModelLoadError(reason)

    def _facts(
        self,
        model: ModelPointer,
        context: ContextPointer,
        vocabulary: Vocabulary,
        layout: cells.Layout,
        n_layers: int,
    ) -> ModelFacts:
        lc = self._lc
        template = lc.llama_model_chat_template(model, None)
        n_ctx_seq = lc.llama_n_ctx_seq(context)
        n_sequences, n_batch = lc.llama_n_seq_max(context), lc.llama_n_batch(context)
        pooling = pooling_of(self._header)
        shape = self._alone or self._beside(vocabulary.n_tokens)
        taken = self._used.taken()
        return ModelFacts(
            fingerprint=fingerprint(self._header, self._numerics(n_ctx_seq, on_gpu=n_layers > 0)),
            architecture=self._header.architecture,
            n_ctx=self._n_ctx,
            n_ctx_train=lc.llama_model_n_ctx_train(model),
            kv_cells=lc.llama_n_ctx(context) if self._demand.model.has_cells else 0,
            n_sequences=n_sequences,
            batch_tokens=n_batch,
            max_outputs=parameters.max_outputs(vocabulary.n_tokens, n_sequences, n_batch),
            n_vocab=vocabulary.n_tokens,
            n_layers=lc.llama_model_n_layer(model),
            n_gpu_layers=n_layers,
            cell_bytes=self._demand.model.bytes_per_cell,
            n_threads=lc.llama_n_threads_batch(context),
            device_bytes=sum(taken.values()),
            bytes_by_device=taken,
            n_params=lc.llama_model_n_params(model),
            model_bytes=self._header.file_bytes,
            unified=layout.unified,
            asynchronous=n_layers > 0,
            one_a_pass=self._header.architecture in ONE_A_PASS,
            can_cut=_can_cut(lc, model),
            chat_template=template.decode("utf-8", "replace") if template else None,
            bos_text=vocabulary.spelt(lc.llama_vocab_bos(vocabulary.pointer)),
            eos_text=vocabulary.spelt(lc.llama_vocab_eos(vocabulary.pointer)),
            devices=self._used.among_all(),
            system_info=lc.llama_print_system_info().decode("utf-8", "replace").strip(),
            generates=self._alone is None,
            embedding_size=self._embedding_size(model, pooling),
            embedding_tokens=shape.n_input_tokens,
            pooling=pooling,
            adapters=tuple(file.name for file in self._adapters),
            can_infill=vocabulary.infill_tokens() is not None,
            metadata=described(self._header),
            modified_at=self._header.files[0].mtime_ns / 1e9,
            computes_beside=self._computes_beside(model, context, layout, n_layers),
        )

    def _computes_beside(
        self, model: ModelPointer, context: ContextPointer, layout: cells.Layout, n_layers: int
    ) -> bool:
        """Whether a core is left to the engine thread. No pass may lack cells: that would be known
        when it has ended. A draft model computes between the steps, which would delay the report of
        the last one, and in the same thread as the model, which may be on a device."""
        lc = self._lc
        has_draft = self._config.speculation is Speculation.DRAFT
        is_generating_cpu = n_layers == 0 and self._alone is None and not has_draft
        has_all_cells = not layout.unified and lc.llama_n_ctx_seq(context) >= self._n_ctx
        is_free = lc.llama_n_threads(context) < host.usable_cores()
        return is_generating_cpu and has_all_cells and is_free and _can_cut(lc, model)

    def _embedding_size(self, model: ModelPointer, pooling: Pooling) -> int:
        if pooling is Pooling.RANK or self._header.architecture in NO_EMBEDDINGS:
            return 0
        size: int = self._lc.llama_model_n_embd_out(model)
        return size

    def _numerics(self, n_ctx_seq: int, *, on_gpu: bool) -> tuple[str, ...]:
        """The settings that logits depend on, besides the file, as llama.cpp has applied them."""
        config = self._config
        flash = self._model_demand.flash_attention(on_gpu=on_gpu)
        if self._log.flash_attention is not None:
            flash = FlashAttention.ON if self._log.flash_attention else FlashAttention.OFF
        found = (
            *(self._version, f"kv={config.cache_type_k}/{config.cache_type_v}", f"flash={flash}"),
            *(f"adapter={file.name}/{sample_digest(Path(file.path))}" for file in self._adapters),
        )
        original = original_context(self._header)
        if original is None:
            return found
        return *found, "rope=long" if n_ctx_seq > original else "rope=short"


def _can_cut(lc: Bindings, model: ModelPointer) -> bool:
    return not (lc.llama_model_is_recurrent(model) or lc.llama_model_is_hybrid(model))


def _log_fewer_layers(before: int, after: int, reason: MemoryShort) -> None:
    logger.warning("n_gpu_layers_reduced from=%d to=%d reason=%s", before, after, reason)


def _log_placement(facts: ModelFacts, limit_bytes: int | None) -> None:
    logger.info(
        "model_placed n_gpu_layers=%d of=%d kv_cells=%d unified=%s",
        facts.n_gpu_layers,
        facts.n_layers,
        facts.kv_cells,
        facts.unified,
    )
    for name, n_bytes in facts.bytes_by_device.items():
        if limit_bytes is not None and n_bytes > limit_bytes:  # buffers that nothing reckoned
            logger.warning(
                "device_limit_exceeded device=%s taken=%d limit=%d", name, n_bytes, limit_bytes
            )
