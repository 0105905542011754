"""A trace's spans: queue, prefill, decode, and a replay on the next worker."""

from gpufc.ids import RequestId, RequestNo
from gpufc.protocol import TextPrompt
from gpufc.sampling import SamplingParams
from supervisor.dispatch.request import GenerationRequest
from supervisor.dispatch.stream import ResponseStream
from supervisor.dispatch.stream_log import StreamLog
from supervisor.dispatch.timings import Run
from supervisor.tracing.spans import ROOT, Answer, root_of, spans_of


def ended_stream(*runs: Run) -> ResponseStream:
    request = GenerationRequest(
        id=RequestId("r1"),
        model="m",
        prompts=(TextPrompt("x"),),
        sampling=SamplingParams(seed=1),
        created=0,
    )
    log = StreamLog(RequestNo(1), request)
    stream = ResponseStream(request, [log], on_cancel=lambda _: None, submitted_at=1.0)
    stream.timings.started_at, stream.timings.ended_at = 2.0, 9.0
    stream.timings.runs.extend(runs)
    return stream


def test_a_request_has_its_queue_and_the_parts_of_its_run() -> None:
    stream = ended_stream(Run("default-0", 1, 0, 2.0, first_at=3.0, ended_at=9.0))
    found = [(span.name, span.begin, span.end, span.parent) for span in spans_of(stream, 9.5)]
    assert found == [
        ("queue", 1.0, 2.0, ROOT),
        ("run", 2.0, 9.0, ROOT),
        ("prefill", 2.0, 3.0, 1),
        ("decode", 3.0, 9.0, 1),
    ]


def test_a_replay_is_a_span_beside_the_run_that_was_lost() -> None:
    lost = Run("default-0", 1, 0, 2.0, first_at=3.0, ended_at=5.0, was_lost=True)
    again = Run("default-0", 2, 0, 6.0, n_known=7, is_replay=True, first_at=7.0, ended_at=9.0)
    spans = spans_of(ended_stream(lost, again), 9.0)
    assert [span.name for span in spans if span.parent == ROOT] == ["queue", "run", "replay"]
    run, replay = (span for span in spans if "gpufc.epoch" in span.attributes)
    assert run.failed
    assert not replay.failed
    assert replay.attributes["gpufc.known_tokens"] == 7
    assert replay.attributes["gpufc.epoch"] == 2


def test_a_request_that_never_ran_and_one_that_goes_on_are_cut_at_the_answer() -> None:
    stream = ended_stream(Run("default-0", 1, 0, 2.0))
    stream.timings.ended_at = None
    spans = spans_of(stream, 4.0)
    assert [(span.name, span.end) for span in spans] == [
        ("queue", 2.0),
        ("run", 4.0),
        ("prefill", 4.0),
    ]


def test_the_root_names_route_model_and_status() -> None:
    answer = Answer(
        request_id="r1", method="POST", route="/v1/completions", status=500, began=1.0, ended=9.0
    )
    root = root_of(answer, ended_stream())
    assert root.name == "POST /v1/completions"
    assert root.failed
    assert root.attributes["gpufc.request_id"] == "r1"
    assert root.attributes["gen_ai.request.model"] == "m"
    assert root_of(answer, None).attributes["http.route"] == "/v1/completions"
