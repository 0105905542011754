"""Which profile follows from which facts, and that no other module reads them."""

import ast

import msgspec
import pytest

from engine_worker.backend.fake.backend import FakeBackend
from engine_worker.backend.port import ModelFacts
from engine_worker.backend.profile import Drafting, Shape, least_copied, profile_of
from engine_worker.tuning import H100
from gpufc.config import BackendKind, ModelConfig
from tests.structure import modules, room_of

ABOUT_THE_DEVICE = {"unified", "can_cut", "asynchronous", "wholly_on_device"}

MAKERS = ["engine_worker.backend", "engine_worker.placement", "engine_worker.worker"]
"""Adapters make the facts, placement decides on layouts that have one of the names, and the worker
repeats facts to the front."""


def facts(*, n_gpu_layers: int = 0, unified: bool = False, can_cut: bool = True) -> ModelFacts:
    config = ModelConfig(backend=BackendKind.FAKE)
    return msgspec.structs.replace(
        FakeBackend.load(config, 6, lambda _: None).facts,
        n_layers=4,
        n_gpu_layers=n_gpu_layers,
        asynchronous=n_gpu_layers > 0,
        unified=unified,
        can_cut=can_cut,
    )


@pytest.mark.parametrize(
    ("given", "shape"),
    [
        (facts(), Shape.MIXED),
        (facts(unified=True), Shape.MIXED),
        (facts(n_gpu_layers=4, unified=True), Shape.MIXED),
        (facts(n_gpu_layers=2), Shape.EQUAL),
        (facts(n_gpu_layers=4, can_cut=False), Shape.EQUAL),
        (facts(n_gpu_layers=4), Shape.FIXED),
    ],
)
def test_only_a_device_with_streams_and_all_layers_has_fixed_passes(
    given: ModelFacts, shape: Shape
) -> None:
    assert profile_of(given).shape is shape


@pytest.mark.parametrize("unified", [True, False])
def test_a_state_that_cannot_be_cut_has_no_drafts_and_no_consecutive_slots(unified: bool) -> None:
    profile = profile_of(facts(unified=unified, can_cut=False, n_gpu_layers=4))
    assert (profile.drafting, profile.consecutive) == (Drafting.NONE, False)
    assert not profile.cuts_prefixes


def test_drafts_are_chosen_for_a_stretch_where_the_device_has_all_layers() -> None:
    chosen = [profile_of(facts(n_gpu_layers=n)).drafting for n in (0, 2, 4)]
    assert chosen == [Drafting.ANY_LENGTH, Drafting.ANY_LENGTH, Drafting.ONE_LENGTH]


def test_work_overlaps_and_copies_have_a_least_length_only_beside_a_device() -> None:
    alone, beside = profile_of(facts()), profile_of(facts(n_gpu_layers=1))
    assert (alone.overlaps, alone.least_copied) == (False, 0)
    assert beside.overlaps
    assert beside.least_copied > 0


@pytest.mark.parametrize(
    ("n_layers", "n_params", "least", "most"),
    [(30, 135_000_000, 100, 200), (32, 8_000_000_000, 10, 25)],
)
def test_a_copy_is_worth_more_tokens_of_a_small_model(
    n_layers: int, n_params: int, least: int, most: int
) -> None:
    model = msgspec.structs.replace(facts(), n_layers=n_layers, n_params=n_params)
    assert least < least_copied(model, H100) < most


@pytest.mark.parametrize(("n_params", "is_slow"), [(135_000_000, False), (8_000_000_000, True)])
def test_a_token_of_a_large_model_takes_long_enough_for_whole_replays(
    n_params: int, is_slow: bool
) -> None:
    model = msgspec.structs.replace(facts(n_gpu_layers=4), n_params=n_params)
    assert (profile_of(model).prompt_token_s >= H100.whole_replays_token_s) is is_slow


def test_the_profile_alone_reads_the_facts_about_the_device() -> None:
    readers = {
        module
        for module, path in modules("engine_worker")
        if room_of(module, MAKERS) is None
        and any(
            isinstance(node, ast.Attribute) and node.attr in ABOUT_THE_DEVICE
            for node in ast.walk(ast.parse(path.read_text()))
        )
    }
    assert readers == set()
