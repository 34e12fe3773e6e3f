"""The Helm chart: linted, rendered with several sets of values, held against the API's own schemas, and its promises looked at."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from harness import environment

CHART = environment.ROOT / "charts" / "aegis"
KEY = {"masterKey": {"existingSecret": "aegis-master", "key": "master-key", "kind": "key"}}
VERSIONS = ("1.28", "1.33", "1.37")
SETS: dict[str, dict[str, Any]] = {
    "defaults": KEY,
    "everything": {
        **KEY,
        "masterKey": {"existingSecret": "m", "key": "k", "kind": "passphrase"},
        "image": {"repository": "registry.example/aegis", "digest": "sha256:" + "a" * 64, "pullSecrets": ["regcred"]},
        "node": "eu-1",
        "routes": '[[route]]\nname = "web"\n',
        "policies": {"own.cedar": '@id("x")\npermit (principal, action, resource);\n'},
        "server": {"max_connections_per_source": 4096, "drain_seconds": 20},
        "secrets": [{"name": "github", "secretName": "github-token"}],
        "persistence": {"size": "50Gi", "storageClass": "fast", "accessMode": "ReadWriteOncePod"},
        "service": {"type": "LoadBalancer", "port": 80, "annotations": {"a": "b"}},
        "tls": {"enabled": True, "port": 443, "names": ["gate.example"]},
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "agents", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "high",
        "podAnnotations": {"team": "yes"},
        "fullnameOverride": "gate",
    },
    "open network": {**KEY, "networkPolicy": {"enabled": False}},
    "own claim": {**KEY, "persistence": {"existingClaim": "old"}, "networkPolicy": {"isolateNamespace": False}},
}


@pytest.fixture(scope="module")
def helm(cache: Path) -> Path:
    return cache / "bin" / "helm"


def run(helm: Path, tmp_path: Path, *words: str, values: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    file = tmp_path / "values.yaml"
    file.write_text(json.dumps(values))
    command = [helm, *words, CHART, "--values", file, "--namespace", "agents"]
    home = {"HELM_CACHE_HOME": str(tmp_path), "HELM_CONFIG_HOME": str(tmp_path), "HELM_DATA_HOME": str(tmp_path)}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment.clean(home))


def render(helm: Path, tmp_path: Path, values: dict[str, Any]) -> list[dict[str, Any]]:
    done = run(helm, tmp_path, "template", "house", values=values)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def one(objects: list[dict[str, Any]], kind: str, ending: str = "") -> dict[str, Any]:
    (found,) = (o for o in objects if o["kind"] == kind and o["metadata"]["name"].endswith(ending))
    return found


@pytest.mark.parametrize("name", SETS)
def test_lint_finds_nothing(helm: Path, tmp_path: Path, name: str) -> None:
    done = run(helm, tmp_path, "lint", "--strict", values=SETS[name])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout and "[ERROR]" not in done.stdout, done.stdout


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", SETS)
def test_every_object_is_one_that_the_api_takes(helm: Path, tmp_path: Path, name: str, version: str) -> None:
    objects = render(helm, tmp_path, SETS[name])
    assert len(objects) >= 6
    for each in objects:
        kubernetes_validate.validate(each, version, strict=True)


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({}, "existingSecret"),
        ({**KEY, "replicas": 2}, "replicas"),
        ({**KEY, "node": "Not a node"}, "node"),
        ({**KEY, "masterKey": {**KEY["masterKey"], "value": "0f0f"}}, "value"),
        ({**KEY, "policies": {"../x.cedar": "x"}}, "x.cedar"),
        ({**KEY, "server": {"listen": "0.0.0.0:1"}}, "listen"),
        ({**KEY, "tls": {"names": ["Gate"]}}, "names"),
        ({**KEY, "persistence": {"accessMode": "ReadWriteMany"}}, "accessMode"),
        ({**KEY, "image": {"repository": "x", "digest": "latest"}}, "digest"),
    ],
)
def test_values_that_cannot_be_meant_are_refused_by_name(
    helm: Path, tmp_path: Path, values: dict[str, Any], names: str
) -> None:
    done = run(helm, tmp_path, "template", "house", values=values)
    assert done.returncode != 0
    assert names in done.stderr, done.stderr


def test_nothing_is_secret_in_the_chart_and_every_secret_is_a_reference(helm: Path, tmp_path: Path) -> None:
    objects = render(helm, tmp_path, SETS["everything"])
    assert not any(o["kind"] == "Secret" for o in objects)
    (variable,) = pod(objects)["containers"][0]["env"]
    assert variable["valueFrom"]["secretKeyRef"] == {"name": "m", "key": "k"}
    mounted = {v["name"]: v["secret"] for v in pod(objects)["volumes"] if "secret" in v}
    assert mounted == {"secret-github": {"secretName": "github-token", "defaultMode": 0o440}}


def test_one_writer(helm: Path, tmp_path: Path) -> None:
    for name, values in SETS.items():
        spec = one(render(helm, tmp_path, values), "StatefulSet")["spec"]
        assert spec["replicas"] == 1, name
        claims = [c["metadata"]["name"] for c in spec.get("volumeClaimTemplates", [])]
        given = [v["name"] for v in spec["template"]["spec"]["volumes"] if "persistentVolumeClaim" in v]
        assert claims + given == ["data"], name


def test_the_pod_may_do_nothing_but_its_work(helm: Path, tmp_path: Path) -> None:
    for values in SETS.values():
        objects = render(helm, tmp_path, values)
        spec, (container,) = pod(objects), pod(objects)["containers"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True and context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert spec["automountServiceAccountToken"] is False
        assert one(objects, "ServiceAccount")["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        writable = {m["mountPath"] for m in container["volumeMounts"] if not m.get("readOnly")}
        assert writable == {"/var/lib/aegis", "/tmp"}


def test_probes_ask_what_they_mean(helm: Path, tmp_path: Path) -> None:
    container = pod(render(helm, tmp_path, KEY))["containers"][0]
    assert container["livenessProbe"]["httpGet"] == {"path": "/health", "port": "agents"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/ready", "port": "agents"}
    assert container["startupProbe"]["failureThreshold"] * container["startupProbe"]["periodSeconds"] == 120


def test_pods_have_no_way_out_but_the_gateway(helm: Path, tmp_path: Path) -> None:
    objects = render(helm, tmp_path, KEY)
    labels = one(objects, "StatefulSet")["spec"]["template"]["metadata"]["labels"]
    isolated = one(objects, "NetworkPolicy", "-only-way-out")["spec"]
    assert isolated["policyTypes"] == ["Egress"]
    (expression,) = isolated["podSelector"]["matchExpressions"]
    assert expression["operator"] == "NotIn" and labels[expression["key"]] in expression["values"], "all but the gateway"
    to_gateway, to_dns = isolated["egress"]
    (peer,) = to_gateway["to"]
    assert list(peer) == ["podSelector"] and peer["podSelector"]["matchLabels"].items() <= labels.items()
    assert to_gateway["ports"] == [{"protocol": "TCP", "port": "agents"}]
    assert {p["port"] for p in to_dns["ports"]} == {53}
    own = one(objects, "NetworkPolicy", "aegis")["spec"]
    assert own["policyTypes"] == ["Ingress", "Egress"]
    assert own["ingress"] == [{"from": [{"podSelector": {}}], "ports": [{"protocol": "TCP", "port": "agents"}]}]
    blocks = [peer["ipBlock"] for rule in own["egress"] for peer in rule["to"] if "ipBlock" in peer]
    assert "169.254.0.0/16" in blocks[0]["except"] and all(r["ports"] for r in own["egress"])


def test_a_listener_for_tls_is_reached_where_it_is_wanted(helm: Path, tmp_path: Path) -> None:
    objects = render(helm, tmp_path, SETS["everything"])
    config = tomllib.loads(one(objects, "ConfigMap", "gate")["data"]["aegis.toml"])
    assert config["tls"] == {"listen": "0.0.0.0:8443", "names": ["gate", "gate.agents", "gate.agents.svc", "gate.example"]}
    assert {"name": "tls", "containerPort": 8443, "protocol": "TCP"} in pod(objects)["containers"][0]["ports"]
    assert {p["port"]: p["targetPort"] for p in one(objects, "Service")["spec"]["ports"]} == {80: "agents", 443: "tls"}
    ports = [{"protocol": "TCP", "port": "agents"}, {"protocol": "TCP", "port": "tls"}]
    assert one(objects, "NetworkPolicy", "gate")["spec"]["ingress"][0]["ports"] == ports
    assert one(objects, "NetworkPolicy", "-only-way-out")["spec"]["egress"][0]["ports"] == ports
    assert "8443" not in json.dumps(render(helm, tmp_path, KEY))


def test_the_shipped_files_are_the_ones_that_are_mounted(helm: Path, tmp_path: Path) -> None:
    objects = render(helm, tmp_path, KEY)
    assert one(objects, "ConfigMap", "-routes")["data"]["routes.toml"] == (environment.ROOT / "routes.toml").read_text()
    shipped = {path.name: path.read_text() for path in (environment.ROOT / "policies").glob("*.cedar")}
    assert one(objects, "ConfigMap", "-policies")["data"] == shipped
    own = render(helm, tmp_path, SETS["everything"])
    assert list(one(own, "ConfigMap", "-policies")["data"]) == ["own.cedar"]


def test_a_changed_route_restarts_nothing_and_a_changed_address_does(helm: Path, tmp_path: Path) -> None:
    """Routes and policies are reloaded where they are mounted; aegis.toml is read once."""
    before = one(render(helm, tmp_path, KEY), "StatefulSet")
    assert one(render(helm, tmp_path, {**KEY, "routes": "# none\n"}), "StatefulSet") == before
    assert one(render(helm, tmp_path, {**KEY, "server": {"drain_seconds": 5}}), "StatefulSet") != before
    mounts = before["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    assert not any("subPath" in mount for mount in mounts), "such a mount never changes"


@pytest.mark.binary
@pytest.mark.parametrize("name", SETS)
def test_the_gateway_takes_the_configuration(helm: Path, tmp_path: Path, name: str) -> None:
    """The rendered files, put where they would be mounted: paths aside, the binary itself checks them."""
    objects = render(helm, tmp_path, SETS[name])
    config = one(objects, "ConfigMap", one(objects, "StatefulSet")["metadata"]["name"])
    text = config["data"]["aegis.toml"]
    parsed = tomllib.loads(text)
    assert parsed["server"]["admin_listen"].startswith("127.0.0.1:")
    mounts = {m["mountPath"] for m in pod(objects)["containers"][0]["volumeMounts"]}
    for path in (parsed["files"]["routes"], parsed["files"]["policies"], parsed["state"]["dir"]):
        assert any(path.startswith(mount) for mount in mounts), path
    for key, where in (("-routes", "routes"), ("-policies", "policies")):
        (tmp_path / where).mkdir()
        for file, content in one(objects, "ConfigMap", key)["data"].items():
            (tmp_path / where / file).write_text(content)
    text = text.replace("/etc/aegis/", f"{tmp_path}/").replace("/var/lib/aegis", str(tmp_path))
    (tmp_path / "aegis.toml").write_text(text)
    if name == "everything":
        return  # its route is no route: only what the chart makes of it is looked at
    for check in (["routes", "check"], ["policy", "check"]):
        command = [environment.aegis(), *check, "--config", tmp_path / "aegis.toml"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment.clean())
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_versions_are_those_of_the_workspace() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = re.search(r'^version = "(.+)"', (environment.ROOT / "Cargo.toml").read_text(), re.MULTILINE)
    assert version and chart["appVersion"] == version[1]
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert values.keys() <= schema["properties"].keys()


def pod(objects: list[dict[str, Any]]) -> dict[str, Any]:
    return one(objects, "StatefulSet")["spec"]["template"]["spec"]
