"""Reports the engine's abilities here as a JSON object: `python -m engine_worker.probe`.

`gpufc-supervisor doctor` runs it in a process of its own: importing llama.cpp may crash on a
machine that it was not compiled for, and a model's header is untrusted. Loads no weights.

    {"llama_cpp": {"version", "system_info", "supports_gpu", "devices": […]} or {"error"},
     "model": {"architecture", "name", "purpose", "n_ctx_train", "file_bytes", "cell_bytes",
               "n_parts", "n_tensors", "quantization", "chat_template", "metadata"}
              or {"error"},
     "confined": {"in_force": [part], "missing": {part: reason}}, "available_bytes": …}

A second object has the model's `template_error`. It comes later because llama.cpp reads the
vocabulary for it, and a damaged one may end this process.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from engine_worker import host
from engine_worker.backend.llama.bindings import library_of
from engine_worker.backend.llama.devices import list_devices
from engine_worker.confinement.confine import abilities
from engine_worker.model_file.description import described, quantization
from engine_worker.model_file.gguf_header import read_header
from engine_worker.model_file.purpose import other_kind, purpose_of, require_served
from engine_worker.placement.footprint import footprint
from engine_worker.prompts import templates
from engine_worker.prompts.template_process import TemplateRenderer
from gpufc.config import KvType
from gpufc.errors import EngineUnavailable, InvalidRequest, ModelLoadError


def engine() -> dict[str, Any]:
    """Version, compiled-in features and devices of llama.cpp, or the error of its import."""
    try:
        import llama_cpp
        import llama_cpp.llama_cpp as lc
    except (ImportError, OSError, RuntimeError) as err:
        return {"error": f"{type(err).__name__}: {err}"}
    _silence(lc)
    lc.llama_backend_init()
    devices = list_devices(library_of(lc))
    names = [field.name for field in msgspec.structs.fields(type(devices[0]))] if devices else []
    return {
        "version": llama_cpp.__version__,
        "system_info": lc.llama_print_system_info().decode("utf-8", "replace").strip(),
        "supports_gpu": bool(lc.llama_supports_gpu_offload()),
        "devices": [{name: getattr(device, name) for name in names} for device in devices],
    }


def model(path: Path, cache_types: Sequence[str]) -> dict[str, Any]:
    """Facts from the file's header, or its fault. Every tensor is checked to lie within the file.

    `cache_types` are the types of keys and values, which determine a cell's size. A whole file that
    is no text model has a `kind`, such as `adapter`, beside its fault.
    """
    kind = ""
    try:
        header = read_header(path)
        kind = other_kind(header)
        require_served(header, str(path))
    except ModelLoadError as err:
        return {"error": str(err), "kind": kind}
    return {
        "architecture": header.architecture,
        "name": header.text("general.name"),
        "purpose": purpose_of(header),
        "n_ctx_train": header.number(f"{header.architecture}.context_length"),
        "file_bytes": header.file_bytes,
        "cell_bytes": footprint(header, *map(KvType, cache_types)).bytes_per_cell,
        "n_parts": len(header.parts),
        "n_tensors": header.n_tensors,
        "quantization": quantization(header.number("general.file_type", -1)),
        "chat_template": header.text("tokenizer.chat_template"),
        "metadata": described(header),
    }


def template_error(path: Path, wanted: str | None) -> str:
    """Why the model's chat template, or the one that is wanted for it, cannot be used; empty if it
    can, or if that cannot be found out now."""
    from engine_worker.backend.llama import vocabulary_process

    vocabulary = vocabulary_process.load(str(path))
    if vocabulary is None:
        return ""
    text = read_header(path).text
    try:
        source = templates.chosen(
            wanted,
            text("tokenizer.chat_template") or None,
            lambda name: text(f"tokenizer.chat_template.{name}") or None,
        )
        renderer = TemplateRenderer(source, vocabulary.special_tokens().names)
        try:
            renderer.start()
        finally:
            renderer.close()
    except (ModelLoadError, InvalidRequest) as err:
        return str(err)
    except EngineUnavailable:
        pass
    return ""


def main() -> None:
    """The optional arguments are a model's path, the types of its cache, and its template."""
    report: dict[str, Any] = {
        "llama_cpp": engine(),
        "confined": msgspec.to_builtins(abilities()),
        "available_bytes": host.available_memory(),
    }
    if len(sys.argv) > 1:
        path = Path(sys.argv[1])
        report["model"] = model(path, sys.argv[2:4])
    _say(report)
    if "model" in report and not any("error" in report[name] for name in ("llama_cpp", "model")):
        _say({"template_error": template_error(path, sys.argv[4] if sys.argv[4:] else None)})


def _say(found: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


_callbacks: list[Any] = []
"""llama.cpp keeps only a pointer to its log callback, which must live as long as the process."""


def _silence(lc: Any) -> None:
    _callbacks.append(lc.llama_log_callback(lambda _level, _text, _data: None))
    lc.llama_log_set(_callbacks[-1], None)


if __name__ == "__main__":
    main()
