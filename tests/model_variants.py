"""Other forms of one model file: packed otherwise, in parts, cut off."""

import ctypes
import shutil
from pathlib import Path


def requantized(model: Path, to: Path) -> Path:
    """The model with weights of eight bits, as llama.cpp's own program writes it."""
    import llama_cpp

    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0
    parameters.allow_requantize = True
    parameters.nthread = 1
    failed = llama_cpp.llama_model_quantize(
        str(model).encode(), str(to).encode(), ctypes.byref(parameters)
    )
    assert not failed
    return to


def split(model: Path, folder: Path, n_tensors: int) -> list[Path]:
    """The model in parts of at most so many tensors, named as llama.cpp names them."""
    from gguf import GGUFReader, GGUFValueType, GGUFWriter

    reader = GGUFReader(model)
    architecture = reader.get_field("general.architecture")
    assert architecture is not None
    writer = GGUFWriter(folder / "split.gguf", architecture.contents(), split_max_tensors=n_tensors)
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind is GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(folder.glob("split-*.gguf"))


def truncated(model: Path, to: Path, n_bytes: int) -> Path:
    """The file without its last bytes."""
    shutil.copyfile(model, to)
    with to.open("r+b") as file:
        file.truncate(model.stat().st_size - n_bytes)
    return to
