from typing import Any

import pytest

from engine_worker.model_file.gguf_header import GgufHeader
from engine_worker.model_file.purpose import Purpose, pooling_of, purpose_of, require_served
from gpufc.errors import ModelLoadError
from gpufc.facts import Pooling


def header(architecture: str, *groups: str, **metadata: Any) -> GgufHeader:
    return GgufHeader(
        metadata={"general.architecture": architecture}
        | {key.replace("__", "."): value for key, value in metadata.items()},
        n_tensors=1,
        tensor_bytes=dict.fromkeys(groups, 4),
        header_bytes=0,
        files=(),
    )


@pytest.mark.parametrize(
    ("given", "purpose", "pooling"),
    [
        (header("llama"), Purpose.GENERATE, Pooling.MEAN),
        (header("llama", llama__pooling_type=0), Purpose.GENERATE, Pooling.MEAN),
        (header("llama", llama__pooling_type=-1), Purpose.GENERATE, Pooling.MEAN),
        (header("llama", llama__pooling_type=0xFFFFFFFF), Purpose.GENERATE, Pooling.MEAN),
        (header("qwen3", qwen3__pooling_type=3), Purpose.EMBED, Pooling.LAST),
        (header("bert"), Purpose.EMBED, Pooling.MEAN),
        (header("bert", bert__pooling_type=2), Purpose.EMBED, Pooling.CLS),
        (header("bert", "cls", bert__pooling_type=2), Purpose.EMBED, Pooling.CLS),
        (header("bert", "cls"), Purpose.RANK, Pooling.RANK),
        (header("qwen3", "cls", qwen3__pooling_type=4), Purpose.RANK, Pooling.RANK),
        (header("llama", llama__attention__causal=False), Purpose.EMBED, Pooling.MEAN),
    ],
)
def test_the_header_tells_the_work_of_a_model(
    given: GgufHeader, purpose: Purpose, pooling: Pooling
) -> None:
    require_served(given, "m.gguf")
    assert (purpose_of(given), pooling_of(given)) == (purpose, pooling)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (header("llama", general__type="adapter"), "adapter"),
        (header("clip"), "clip"),
        (header("t5encoder"), "t5encoder"),
        (header("qwen3tts"), "qwen3tts"),
        (header("eagle3"), "eagle3"),
        (header("gemma4-assistant"), "gemma4-assistant"),
        (header(""), "no architecture"),
    ],
)
def test_a_file_that_cannot_be_served_is_refused(given: GgufHeader, reason: str) -> None:
    with pytest.raises(ModelLoadError, match=reason):
        require_served(given, "m.gguf")
