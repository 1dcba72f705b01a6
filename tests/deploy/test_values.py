"""The chart's values: wrong ones are refused by name, each is explained, and they reach the service as written."""

import json
from typing import Any

import jsonschema
import pytest
import yaml
from helm_python import HelmRenderError, HelmValuesError

from docs.generate.helm import NOT_IN_A_CLUSTER, chart_values, made_by_the_chart
from docs.generate.settings import variable
from service.__main__ import GRACE_S
from service.settings import SECRETS, Settings
from tests.deploy.chart import CHART, Values, case, one, over, own_containers, render


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"replcas": 3}, "'replcas'"),
        ({"replicas": 0}, "/replicas"),
        ({"replicas": "2"}, "/replicas"),
        ({"redis": {"url": "redis://:password@redis"}}, "'url'"),
        ({"releases": {"url": "https://releases.example"}}, "'https://releases.example'"),
        ({"releases": {"url": "s3://key:secret@bucket"}}, "/releases/url"),
        ({"releases": {"cacheSize": "20GB"}}, "'20GB'"),
        ({"settings": {"ISRF_WORKER": 2}}, "'ISRF_WORKER'"),
        ({"settings": {"ISRF_WORKERS": 0}}, "/settings/ISRF_WORKERS"),
        ({"settings": {"ISRF_VARIANT": "int4"}}, "/settings/ISRF_VARIANT"),
        ({"settings": {"ISRF_BIND_PORT": 80}}, "'ISRF_BIND_PORT'"),
        ({"variables": {"AWS_SECRET_ACCESS_KEY": "x"}}, "'AWS_SECRET_ACCESS_KEY'"),
        ({"image": {"service": {"digest": "sha256:12"}}}, "/image/service/digest"),
        ({"resources": {"limits": {"memory": "4 GB"}}}, "/resources/limits/memory"),
        ({"drain": {"graceSeconds": GRACE_S}}, "/drain/graceSeconds"),
        ({"rollout": {"maxSurge": 0}}, "/rollout/maxSurge"),
        ({"disruptionBudget": {"maxUnavailable": "100%"}}, "/disruptionBudget/maxUnavailable"),
        ({"topologySpread": {"whenUnsatisfiable": "Never"}}, "/topologySpread/whenUnsatisfiable"),
        ({"job": {"schedule": "nightly"}}, "'nightly'"),
        ({"job": {"ray": {"mode": "cluster"}}}, "/job/ray/mode"),
        ({"networkPolicy": {"redisPort": 70000}}, "/networkPolicy/redisPort"),
        ({"monitoring": {"port": 8000}}, "/monitoring/port"),
    ],
    ids=str,
)
def test_a_wrong_value_is_refused_by_its_name(changes: Values, named: str) -> None:
    with pytest.raises(HelmValuesError) as caught:
        render(over(case("object-store"), changes))
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"redis": {"existingSecret": ""}}, "redis.existingSecret is empty"),
        ({"releases": {"url": ""}}, "releases.url and releases.existingClaim are empty"),
        ({"releases": {"existingClaim": "shop"}}, "are both set"),
        ({"serviceAccount": {"create": False}}, "serviceAccount.name is empty"),
        ({"ingress": {"enabled": True, "host": "shop.example"}}, "ingress.tlsSecret"),
        (
            {"ingress": {"enabled": True, "host": "shop.example", "tlsSecret": "tls"}},
            "networkPolicy.from is empty",
        ),
        ({"autoscaling": {"enabled": True, "minReplicas": 20}}, "autoscaling.minReplicas (20)"),
        ({"autoscaling": {"enabled": True, "cpuPercent": 0}}, "autoscaling.modelQueue"),
        ({"job": {"enabled": True, "ray": {"mode": "address"}}}, "job.ray.address is empty"),
    ],
    ids=str,
)
def test_values_that_cannot_work_together_are_refused(changes: Values, named: str) -> None:
    with pytest.raises(HelmRenderError) as caught:
        render(over(case("object-store"), changes))
    assert named in str(caught.value)


def test_every_value_has_a_sentence_and_a_schema() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    explained = {one.path for one in chart_values()}
    assert all(one.sentence.endswith(".") for one in chart_values())

    def paths(value: Any, path: tuple[str, ...]) -> list[tuple[str, ...]]:
        if path in explained or not isinstance(value, dict) or not value:
            return [path]
        return [found for key, inner in value.items() for found in paths(inner, (*path, key))]

    assert set(paths(values, ())) == explained
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.validate(values, schema)
    for path in explained:
        part = schema
        for key in path:
            part = part if "properties" in part else schema["definitions"][part["$ref"].rpartition("/")[2]]
            assert part["additionalProperties"] is False, path
            part = part["properties"][key]


def test_every_setting_can_be_given() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    names = set(schema["properties"]["settings"]["properties"])
    assert names.isdisjoint(made_by_the_chart() | NOT_IN_A_CLUSTER | set(SECRETS))
    every = {variable(name) for name in Settings.model_fields}
    assert names == every - made_by_the_chart() - NOT_IN_A_CLUSTER - set(SECRETS)


def test_values_reach_the_service_as_they_are_written() -> None:
    (container,) = own_containers(one(render(case("everything")), "Deployment")["spec"]["template"])
    given = {variable["name"]: variable["value"] for variable in container["env"]}
    assert given["ISRF_MAX_BODY_BYTES"] == "4194304", "no 4.194304e+06"
    assert given["ISRF_REDIS_READ_TIMEOUT_S"] == "0.2"
    assert given["ISRF_STUDIO"] == "false"
    assert given["ISRF_EXPERIMENT"] == "r-0c73452ec1f2:10%"
    assert given["AWS_REGION"] == "eu-central-1"
