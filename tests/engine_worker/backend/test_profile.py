"""Which profile follows from which facts, and that no other module reads them."""

import ast
from typing import Any

import msgspec
import pytest

from engine_worker.backend.fake.backend import FakeBackend
from engine_worker.backend.port import ModelFacts
from engine_worker.backend.profile import Drafting, Shape, least_copied, profile_of
from engine_worker.tuning import H100
from gpufc.config import BackendKind, ModelConfig
from tests.structure import modules, room_of

ABOUT_THE_DEVICE = {"unified", "can_cut", "asynchronous", "computes_beside", "wholly_on_device"}

MAKERS = ["engine_worker.backend", "engine_worker.placement", "engine_worker.worker"]
"""Adapters make the facts, placement decides on layouts that have one of the names, and the worker
repeats facts to the front."""


def facts(*, n_gpu_layers: int = 0, **changes: Any) -> ModelFacts:
    loaded = FakeBackend.load(ModelConfig(backend=BackendKind.FAKE), 6, lambda _: None).facts
    plain = {"n_layers": 4, "unified": False, "can_cut": True, **changes}
    is_on_device = n_gpu_layers > 0
    return msgspec.structs.replace(
        loaded, n_gpu_layers=n_gpu_layers, asynchronous=is_on_device, **plain
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


def test_work_overlaps_beside_a_device_and_a_cpu_with_a_free_core() -> None:
    made = [facts(), facts(computes_beside=True), facts(n_gpu_layers=1), facts(n_gpu_layers=4)]
    found = [profile_of(one) for one in made]
    assert [one.overlaps for one in found] == [False, True, True, True]
    assert [one.on_device for one in found] == [False, False, True, True]
    assert [one.steps_ahead for one in found] == [False, True, False, True]


@pytest.mark.parametrize(
    ("n_layers", "n_params", "least", "most"),
    [(30, 135_000_000, 100, 200), (32, 8_000_000_000, 10, 25)],
)
def test_a_device_s_copy_is_worth_more_tokens_of_a_small_model(
    n_layers: int, n_params: int, least: int, most: int
) -> None:
    model = facts(n_layers=n_layers, n_params=n_params, n_gpu_layers=n_layers)
    assert least < least_copied(model, H100) < most


@pytest.mark.parametrize(
    ("n_threads", "n_params", "n_ctx", "least"),
    [
        (2, 135_000_000, 2048, 5),
        (16, 135_000_000, 2048, 37),
        (16, 135_000_000, 8192, 149),
        (16, 8_000_000_000, 8192, 3),
    ],
)
def test_a_copy_between_streams_is_worth_more_tokens_where_many_threads_compute(
    n_threads: int, n_params: int, n_ctx: int, least: int
) -> None:
    cells = {"kv_cells": 4 * n_ctx, "n_sequences": 4, "cell_bytes": 46_080}
    model = facts(n_params=n_params, n_threads=n_threads, **cells)
    assert least_copied(model, H100) == least


def test_a_copy_of_which_nothing_is_known_is_worth_nothing() -> None:
    assert least_copied(facts(n_params=0, n_threads=1, cell_bytes=0), H100) == 0


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
