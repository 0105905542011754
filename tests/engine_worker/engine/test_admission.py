from engine_worker.backend.fake.backend import FakeBackend
from engine_worker.backend.fake.vocabulary import EOS, GENERATED
from engine_worker.engine.admission import sequence_of
from gpufc.config import ModelConfig
from gpufc.ids import Epoch, RequestId, RequestNo
from gpufc.protocol import Generate
from gpufc.sampling import SamplingParams

TOOL = 260


def text_of(*generated: int, spelt: tuple[str, ...] = ()) -> str:
    backend = FakeBackend(ModelConfig(n_ctx=64), 2)
    sampling = SamplingParams(seed=1)
    spec = Generate(
        Epoch(1), RequestNo(1), RequestId("r"), 0, (1,), sampling, max_tokens=9, spelt=spelt
    )
    sequence = sequence_of(spec, backend)
    for token in generated:
        sequence.accept(token)
    return sequence.delta().text


def test_a_control_token_has_no_text_in_an_answer_unless_it_is_to_be_spelt() -> None:
    assert text_of(GENERATED + 97, TOOL, GENERATED + 98) == "ab"
    assert text_of(GENERATED + 97, TOOL, GENERATED + 98, spelt=("<|tool|>",)) == "a<|tool|>b"


def test_an_end_token_is_never_spelt() -> None:
    assert text_of(GENERATED + 97, EOS, spelt=("<|eos|>",)) == "a"
