"""The Kubernetes manifests: valid by the schemas, and in step with the commands and routes."""

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click import Command, Context, Group

from gpufc import settings
from gpufc.config import Spread
from supervisor.cli import cli
from supervisor.cli.preflight import check_spread
from supervisor.http.routes import ROUTES

yaml = pytest.importorskip("yaml")

FOLDER = Path(__file__).parents[2] / "scripts/deploy/kubernetes"
PLAIN = ("gpufc.yaml", "fronts.yaml", "hosts.yaml")
WITH_OTHER_KINDS = "inference-gateway.yaml"
"""Kinds that come with a gateway: no schema is installed for them."""

POOL_SPEC = {"selector", "targetPorts", "endpointPickerRef"}
PICKER_REF = {"group", "kind", "name", "port", "failureMode"}

IMAGE = {"GPUFC_RUNTIME_DIR": "/var/lib/gpufc/run", "GPUFC_HOST": "0.0.0.0"}
"""Variables of the image, which beat a file."""

Json = dict[str, Any]


def documents(name: str) -> list[Json]:
    return [one for one in yaml.safe_load_all((FOLDER / name).read_text()) if one]


def of_kind(name: str, kind: str) -> Json:
    (found,) = (one for one in documents(name) if one["kind"] == kind)
    return found


def pods(name: str) -> Iterator[tuple[Json, Json]]:
    """Each workload with its pods' specification."""
    for one in documents(name):
        if one["kind"] in {"Deployment", "StatefulSet"}:
            yield one, one["spec"]["template"]["spec"]


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("kubernetes_validate") is None,
    reason="kubernetes-validate is missing (pip install kubernetes-validate)",
)
@pytest.mark.parametrize("name", PLAIN)
def test_the_schemas_of_kubernetes_accept_them(name: str) -> None:
    import kubernetes_validate

    for one in documents(name):
        version = kubernetes_validate.latest_version()
        kubernetes_validate.validate(one, version, strict=True)
    misspelt = documents("fronts.yaml")[-1] | {"sepc": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(misspelt, version, strict=True)


@pytest.mark.parametrize("name", ["gpufc.yaml", "fronts.yaml"])
def test_the_configuration_is_one_that_a_front_takes(name: str, tmp_path: Path) -> None:
    file = tmp_path / "gpufc.toml"
    for one in documents(name):
        for text in one.get("data", {}).values() if one["kind"] == "ConfigMap" else ():
            file.write_text(text)
            assert settings.resolve(flags={}, environ={}, file=file).config.models


@pytest.mark.parametrize("name", PLAIN)
def test_selectors_find_the_pods(name: str) -> None:
    labels = [workload["spec"]["template"]["metadata"]["labels"] for workload, _ in pods(name)]
    for workload, _ in pods(name):
        chosen = workload["spec"]["selector"]["matchLabels"]
        assert chosen.items() <= workload["spec"]["template"]["metadata"]["labels"].items()
    for one in documents(name):
        selector = one["spec"].get("selector") if "spec" in one else None
        if one["kind"] in {"Service", "PodDisruptionBudget"} and selector:
            wanted = selector.get("matchLabels", selector)
            assert any(wanted.items() <= given.items() for given in labels), one["metadata"]


@pytest.mark.parametrize("name", PLAIN)
def test_probes_ask_public_routes_of_a_port_that_there_is(name: str) -> None:
    public = {route.path for route in ROUTES if route.scope is None}
    for _, pod in pods(name):
        for container in pod["containers"]:
            ports = {port["name"] for port in container.get("ports", ())}
            for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
                if kind in container:
                    asked = container[kind]["httpGet"]
                    assert asked["path"] in public
                    assert asked["port"] in ports
            if "livenessProbe" in container:
                assert container["livenessProbe"]["httpGet"]["path"] == "/livez"


def options(command: str) -> set[str]:
    found = cli.get_command(Context(cli), command)
    assert found is not None, command
    if isinstance(found, Group):
        return {text for name in found.commands for text in _texts(found.commands[name])}
    return _texts(found)


def _texts(found: Command) -> set[str]:
    return {text for option in found.params for text in option.opts}


def test_a_fronts_pod_has_time_to_drain() -> None:
    ((_, pod),) = pods("fronts.yaml")
    (front,) = pod["containers"]
    program, command, *arguments = front["lifecycle"]["preStop"]["exec"]["command"]
    assert (program, command) == ("gpufc-supervisor", "drain")
    given = dict(zip(arguments[::2], map(float, arguments[1::2]), strict=True))
    assert given.keys() == {"--lead", "--timeout"} <= options("drain")
    text = of_kind("fronts.yaml", "ConfigMap")["data"]["gpufc.toml"]
    shutdown_s = float(re.findall(r"^shutdown_timeout_s = (.*)$", text, re.MULTILINE)[0])
    assert pod["terminationGracePeriodSeconds"] >= given["--timeout"] + shutdown_s
    period_s = front["readinessProbe"]["periodSeconds"]
    assert given["--lead"] > period_s * front["readinessProbe"]["failureThreshold"]


@pytest.mark.parametrize(
    ("name", "spread"), [("gpufc.yaml", Spread.FRONT), ("fronts.yaml", Spread.MACHINES)]
)
def test_a_front_takes_its_configuration(tmp_path: Path, name: str, spread: Spread) -> None:
    file = tmp_path / "gpufc.toml"
    file.write_text(of_kind(name, "ConfigMap")["data"]["gpufc.toml"])
    ((_, pod),) = pods(name)
    (front,) = pod["containers"]
    environ = {one["name"]: one["value"] for one in front["env"] if "value" in one}
    environ = {key: value for key, value in environ.items() if "$" not in value}
    config = settings.resolve(flags={}, environ=IMAGE | environ, file=file).config
    check_spread(config)
    assert [model.spread for model in config.models.values()] == [spread]
    assert front["securityContext"]["readOnlyRootFilesystem"]
    writable = {one["mountPath"] for one in front["volumeMounts"] if not one.get("readOnly")}
    assert str(Path(config.server.runtime_dir or "").parent) in writable
    listens = [config.server.port]
    if config.cluster.cluster_listen is not None:
        listens.append(int(config.cluster.cluster_listen.rpartition(":")[2]))
    assert [port["containerPort"] for port in front["ports"]] == listens


@pytest.mark.parametrize("name", ["fronts.yaml", "hosts.yaml"])
def test_a_node_that_is_gone_is_given_up_soon(name: str) -> None:
    for _, pod in pods(name):
        waits = {
            one["key"]: one["tolerationSeconds"]
            for one in pod["tolerations"]
            if one["effect"] == "NoExecute"
        }
        assert waits == {
            "node.kubernetes.io/unreachable": 20,
            "node.kubernetes.io/not-ready": 20,
        }


def test_hosts_dial_the_front_that_the_service_names() -> None:
    services = [one for one in documents("fronts.yaml") if one["kind"] == "Service"]
    (headless,) = (one for one in services if one["spec"].get("clusterIP") == "None")
    fronts = of_kind("fronts.yaml", "StatefulSet")
    assert headless["spec"]["publishNotReadyAddresses"] is True
    assert fronts["spec"]["serviceName"] == headless["metadata"]["name"]
    port = next(one for one in headless["spec"]["ports"] if one["name"] == "hosts")["port"]
    (front,) = fronts["spec"]["template"]["spec"]["containers"]
    environment = {one["name"]: one.get("value") for one in front["env"]}
    name = headless["metadata"]["name"]
    assert environment["GPUFC_CLUSTER_ADVERTISE"] == f"$(POD_NAME).{name}:{port}"
    text = of_kind("fronts.yaml", "ConfigMap")["data"]["gpufc.toml"]
    assert f'cluster_listen = "0.0.0.0:{port}"' in text


def test_more_hosts_start_while_requests_wait() -> None:
    scaled = of_kind("hosts.yaml", "HorizontalPodAutoscaler")["spec"]
    workload = of_kind("hosts.yaml", "Deployment")
    assert scaled["scaleTargetRef"]["name"] == workload["metadata"]["name"]
    (metric,) = scaled["metrics"]
    assert metric["external"]["metric"]["name"] == "gpufc_num_requests_waiting"
    (host,) = workload["spec"]["template"]["spec"]["containers"]
    assert host["resources"]["limits"]["nvidia.com/gpu"] == 1


def test_the_pool_of_the_gateway_has_the_fronts_and_their_port() -> None:
    spec = of_kind(WITH_OTHER_KINDS, "InferencePool")["spec"]
    assert spec.keys() == POOL_SPEC
    assert spec["endpointPickerRef"].keys() <= PICKER_REF
    fronts = of_kind("fronts.yaml", "StatefulSet")["spec"]["template"]
    assert spec["selector"]["matchLabels"].items() <= fronts["metadata"]["labels"].items()
    (front,) = fronts["spec"]["containers"]
    assert {"name": "http", "containerPort": spec["targetPorts"][0]["number"]} in front["ports"]
    (rule,) = of_kind(WITH_OTHER_KINDS, "HTTPRoute")["spec"]["rules"]
    (backend,) = rule["backendRefs"]
    assert (backend["kind"], backend["name"]) == ("InferencePool", "gpufc")


def test_the_metrics_route_of_the_picker_exists() -> None:
    text = (FOLDER / WITH_OTHER_KINDS).read_text()
    path = re.findall(r"--model-server-metrics-path=(\S+)", text)[0]
    assert path in {route.path for route in ROUTES}


@pytest.mark.parametrize("name", [*PLAIN, WITH_OTHER_KINDS])
def test_commands_in_the_comments_exist(name: str) -> None:
    text = (FOLDER / name).read_text()
    for line in re.findall(r"(?:gpufc-supervisor|`gpufc-supervisor) ([^`>&\n]*)", text):
        command, *words = shlex.split(line)
        given = {word for word in words if word.startswith("--")}
        if command in cli.list_commands(Context(cli)) and given:
            assert given <= options(command), line
