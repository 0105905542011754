"""The adapters that a request chooses."""

from typing import Any

import pytest

from gpufc.adapters import AdapterUse
from gpufc.errors import InvalidRequest
from supervisor.fleet.names import ServedNames
from supervisor.http.generation.adapters import LoraField, chosen
from tests.supervisor.dispatch.fakes import MODEL, generates
from tests.supervisor.http.conftest import running

KNOWN = ("pirate", "sql")


def test_the_order_is_that_of_the_model_and_the_last_scale_counts() -> None:
    given = [LoraField(id=1), LoraField(name="pirate", scale=0.5), LoraField(id=1, scale=2.0)]
    assert chosen(given, None, KNOWN) == (AdapterUse("pirate", 0.5), AdapterUse("sql", 2.0))


def test_a_scale_of_0_leaves_an_adapter_out() -> None:
    assert chosen([LoraField(id=0, scale=0.0)], "pirate", KNOWN) == ()


@pytest.mark.parametrize(
    "entry", [LoraField(id=2), LoraField(id=-1), LoraField(name="x"), LoraField()]
)
def test_an_unknown_adapter_is_refused_by_its_place(entry: LoraField) -> None:
    with pytest.raises(InvalidRequest, match="pirate") as refused:
        chosen([LoraField(id=0), entry], None, KNOWN)
    assert refused.value.param == "lora[1]"


@pytest.mark.parametrize(
    ("fields", "uses"),
    [
        ({}, ()),
        ({"model": "sql"}, (AdapterUse("sql"),)),
        ({"lora": [{"id": 0, "scale": 0.5}]}, (AdapterUse("pirate", 0.5),)),
        ({"model": "sql", "lora": []}, ()),
    ],
)
async def test_the_worker_is_told_the_adapters(
    fields: dict[str, Any], uses: tuple[AdapterUse, ...]
) -> None:
    async with running() as service:
        worker = service.fleet.start_worker()
        service.fleet.adapter_names = KNOWN
        service.fleet.names = ServedNames({MODEL: {"default"}}, {MODEL: KNOWN})
        answer = await service.complete(**fields)
        assert answer.json["model"] == fields.get("model", MODEL)
        (sent,) = generates(worker.sent)
        assert sent.adapters == uses


async def test_the_adapters_are_listed() -> None:
    async with running() as service:
        service.fleet.start_worker()
        service.fleet.adapter_names = KNOWN
        listed = (await service.get("/lora-adapters")).json
        assert [(entry["id"], entry["name"]) for entry in listed] == [(0, "pirate"), (1, "sql")]
        models = (await service.get("/v1/models")).json["data"]
        assert [(model["id"], model.get("parent")) for model in models] == [
            (MODEL, None),
            ("pirate", MODEL),
            ("sql", MODEL),
        ]
