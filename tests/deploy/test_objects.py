"""The chart's objects: what Kubernetes and the operators allow, and what this service needs."""

import json
import re
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import typer
import yaml
from helm_python.chart import lint

from offline.__main__ import app
from service.__main__ import GRACE_S
from tests.deploy.chart import (
    CASES,
    CHART,
    NAMESPACE,
    ROOT,
    SETTINGS,
    KubernetesObject,
    case,
    chart,
    one,
    over,
    own_containers,
    pod_templates,
    render,
)
from tests.docker.dockerfile import environment, last, read_stages

OLDEST, NEWEST = "1.27", "1.37"
CUSTOM = {path.stem: json.loads(path.read_text()) for path in (Path(__file__).parent / "crds").glob("*.json")}
EVERY = pytest.mark.parametrize("name", CASES)


def check(each: KubernetesObject) -> None:
    """Raises where Kubernetes would refuse an object, or an operator its custom resource."""
    if each["kind"] not in CUSTOM:
        for version in (OLDEST, NEWEST):
            kubernetes_validate.validate(each, version, strict=True)
        return
    jsonschema.validate(each, CUSTOM[each["kind"]])
    for template in pod_templates(each):
        pod = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "pod"}, "template": template}
        check(pod)


@EVERY
def test_the_linter_finds_nothing(name: str) -> None:
    report = lint(CHART, case(name), strict=True, namespace=NAMESPACE, kube_version=f"v{OLDEST}.0")
    assert report["errors"] == []
    assert [one["error"] for one in report["messages"] if one["severity"] > 1] == []


@EVERY
def test_kubernetes_takes_every_object(name: str) -> None:
    objects = render(case(name))
    for each in objects:
        check(each)
    names = [(each["kind"], each["metadata"]["name"]) for each in objects]
    assert len(names) == len(set(names)) >= 6


def test_every_kind_is_rendered() -> None:
    assert {each["kind"] for name in CASES for each in render(case(name))} == {
        "ConfigMap",
        "CronJob",
        "Deployment",
        "HorizontalPodAutoscaler",
        "Ingress",
        "NetworkPolicy",
        "PersistentVolumeClaim",
        "PodDisruptionBudget",
        "PrometheusRule",
        "RayJob",
        "Secret",
        "Service",
        "ServiceAccount",
        "ServiceMonitor",
    }


@pytest.mark.parametrize("kind", ["Deployment", "ServiceMonitor", "PrometheusRule"])
def test_a_wrong_object_would_be_found(kind: str) -> None:
    (each, *_) = [each for each in render(case("everything")) if each["kind"] == kind]
    with pytest.raises((kubernetes_validate.ValidationError, jsonschema.ValidationError)):
        check(over(each, {"spec": {"replcas": 2}}))


def test_a_wrong_pod_of_a_rayjob_would_be_found() -> None:
    job = one(render(case("ray-job")), "RayJob")
    check(job)
    job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["images"] = "x"
    with pytest.raises(kubernetes_validate.ValidationError):
        check(job)


@EVERY
def test_variables_are_settings(name: str) -> None:
    for each in render(case(name)):
        for template in pod_templates(each):
            for container in own_containers(template):
                given = [variable["name"] for variable in container.get("env", ())]
                assert len(given) == len(set(given))
                assert {one for one in given if one.startswith(("ISRF_", "REDIS_"))} <= SETTINGS
                assert all(isinstance(variable["value"], str) for variable in container.get("env", ()))


@EVERY
def test_pods_run_with_as_little_as_they_can(name: str) -> None:
    uid, _, gid = last(read_stages(ROOT / "docker/service.Dockerfile")[-1], "USER").partition(":")
    assert uid == gid
    for each in render(case(name)):
        for template in pod_templates(each):
            spec = template["spec"]
            assert spec["automountServiceAccountToken"] is False
            security = spec["securityContext"]
            assert security["runAsNonRoot"] is True
            assert (security["runAsUser"], security["runAsGroup"], security["fsGroup"]) == (int(uid),) * 3
            assert security["seccompProfile"] == {"type": "RuntimeDefault"}
            for container in own_containers(template):
                assert container["securityContext"] == {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                }
                assert "memory" in container["resources"]["limits"]
                writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
                assert "/tmp" in writable
                volumes = {volume["name"] for volume in spec["volumes"]}
                assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


@EVERY
def test_what_an_object_selects_is_there(name: str) -> None:
    objects = render(case(name))
    pods = [template["metadata"]["labels"] for each in objects for template in pod_templates(each)]
    services = [each["metadata"]["labels"] for each in objects if each["kind"] == "Service"]
    for each in objects:
        spec = each.get("spec", {})
        wanted = {
            "Service": lambda spec=spec: (spec["selector"], pods),
            "PodDisruptionBudget": lambda spec=spec: (spec["selector"]["matchLabels"], pods),
            "NetworkPolicy": lambda spec=spec: (spec["podSelector"]["matchLabels"], pods),
            "Deployment": lambda spec=spec: (spec["selector"]["matchLabels"], pods),
            "ServiceMonitor": lambda spec=spec: (spec["selector"]["matchLabels"], services),
        }.get(each["kind"])
        if wanted is not None:
            labels, among = wanted()
            found = [one for one in among if labels.items() <= one.items()]
            assert found, each["metadata"]["name"]
            # A Service or a budget of the service holds no pod of the job.
            assert each["kind"] == "NetworkPolicy" or len(found) == 1


def test_a_pod_has_time_to_start_and_to_drain() -> None:
    for changes in ({}, {"releases": {"openSeconds": 900}}):
        deployment = one(render(over(case("object-store"), changes)), "Deployment")["spec"]
        pod = deployment["template"]["spec"]
        (container,) = pod["containers"]
        given = {variable["name"]: variable["value"] for variable in container["env"]}
        start = container["startupProbe"]
        assert start["periodSeconds"] * start["failureThreshold"] >= 2 * float(given["ISRF_OPEN_DEADLINE_S"])
        assert deployment["progressDeadlineSeconds"] > start["periodSeconds"] * start["failureThreshold"]
        (_, delay) = container["lifecycle"]["preStop"]["exec"]["command"]
        assert pod["terminationGracePeriodSeconds"] >= int(delay) + GRACE_S + 15
        assert deployment["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_the_cache_of_releases_stays_below_its_volumes_limit() -> None:
    pod = one(render(case("everything")), "Deployment")["spec"]["template"]["spec"]
    given = {variable["name"]: variable["value"] for variable in pod["containers"][0]["env"]}
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "release-cache"]
    assert volume["emptyDir"] == {"sizeLimit": "7Gi"}
    assert 0.85 * (7 << 30) < int(given["ISRF_RELEASE_CACHE_BYTES"]) < 0.95 * (7 << 30)
    (mount,) = [mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "release-cache"]
    assert mount == {"name": "release-cache", "mountPath": given["ISRF_RELEASE_CACHE_DIR"]}


def test_the_alerts_are_those_of_compose() -> None:
    rule = one(render(case("everything")), "PrometheusRule")
    assert rule["spec"] == yaml.safe_load((ROOT / "docker/prometheus/alerts.yaml").read_text(encoding="utf-8"))
    monitor = one(render(case("everything")), "ServiceMonitor")
    (renamed,) = monitor["spec"]["endpoints"][0]["relabelings"]
    named = {name for group in rule["spec"]["groups"] for one in group["rules"] for name in jobs(one["expr"])}
    assert {renamed["replacement"]} == named


def jobs(expression: str) -> list[str]:
    return re.findall(r'job="(\w+)"', expression)


@EVERY
def test_the_job_runs_commands_that_exist(name: str) -> None:
    job = [each for each in render(case(name)) if each["kind"] == "CronJob"]
    command = typer.main.get_command(app)
    for each in job:
        assert each["spec"]["concurrencyPolicy"] == "Forbid"
        for template in pod_templates(each):
            for container in own_containers(template):
                assert container["command"] == ["python", "-m", "offline"]
                (subcommand, *arguments) = container["args"]
                assert (container["name"], subcommand) in {("ingest", "ingest"), ("train", "run")}
                with pytest.MonkeyPatch.context() as patch:
                    patch.chdir(ROOT)
                    command.get_command(None, subcommand).make_context(subcommand, arguments)  # type: ignore[attr-defined]


def test_a_rayjob_takes_in_events_and_trains_on_ray() -> None:
    job = one(render(case("ray-job"), revision=7), "RayJob")
    assert job["metadata"]["name"].endswith("-7"), "a RayJob runs once"
    ingest, run = job["spec"]["entrypoint"].split(" && ")
    assert ingest == "python -m offline 'ingest' '--data' '/data/shop' '--from-redis' 'env'"
    assert run.startswith("python -m offline 'run' '--data' '/data/shop' '--releases' 'az://shop-releases/isrf'")
    assert "'--engine' 'ray'" in run
    assert run.endswith("'--set' 'reason.note=it'\\''s'")
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}, "nobody else gives the cluster work"
    assert f"ray=={cluster['rayVersion']}" in (ROOT / "constraints.txt").read_text(encoding="utf-8")
    for template in pod_templates(job):
        (container,) = own_containers(template)
        assert {"secretRef": {"name": "shop-llm"}} in container["envFrom"]


def test_versions_and_notes() -> None:
    metadata = chart().metadata
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    assert compose["service"]["image"] == f"isrf-service:{metadata['appVersion']}"
    deployment = one(render(case("object-store")), "Deployment")
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == compose["service"]["image"]
    image = environment(read_stages(ROOT / "docker/service.Dockerfile")[-1])
    assert image["ISRF_API_KEYS_FILE"] == "/var/lib/isrf/keys/keys.json"
    notes = chart().render(case("object-store"), name="recommend", namespace=NAMESPACE)["isrf/templates/NOTES.txt"]
    assert "kubectl --namespace shop get secret recommend-isrf-made" in notes
