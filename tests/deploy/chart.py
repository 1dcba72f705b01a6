"""The Helm chart rendered by Helm's own library, without a cluster: its objects as data."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from helm_python import Chart

from docs.generate.settings import variable
from service.settings import SECRETS, Settings

Values: TypeAlias = dict[str, Any]
KubernetesObject: TypeAlias = dict[str, Any]

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "isrf"
CASES = {path.stem: path for path in sorted((CHART / "ci").glob("*.yaml"))}
"""Files of values that the chart is rendered with."""
NAMESPACE = "shop"
RELEASE = "recommend"

SETTINGS = {variable(name) for name in Settings.model_fields} | {f"{name}_FILE" for name in SECRETS}
"""Variables that the service reads."""


@cache
def chart() -> Chart:
    return Chart.load(CHART)


def case(name: str) -> Values:
    """The values of a file."""
    values: Values = yaml.safe_load(CASES[name].read_text(encoding="utf-8"))
    return values


def over(base: Values, changes: Values) -> Values:
    """Values with changes laid over them, as Helm does it with two files."""
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = over(merged[key], value) if both else value
    return merged


def render(values: Values, *, revision: int = 1) -> list[KubernetesObject]:
    """The objects that these values give."""
    files = chart().render(values, name=RELEASE, namespace=NAMESPACE, revision=revision)
    return list(objects_in(files))


def objects_in(files: dict[str, str]) -> Iterator[KubernetesObject]:
    for name, text in files.items():
        if not name.endswith(".txt"):
            yield from filter(None, yaml.safe_load_all(text))


def one(objects: list[KubernetesObject], kind: str, name_ends: str = "") -> KubernetesObject:
    """The object of a kind, the only one whose name ends so."""
    (found,) = [each for each in objects if each["kind"] == kind and each["metadata"]["name"].endswith(name_ends)]
    return found


def pod_templates(each: KubernetesObject) -> Iterator[dict[str, Any]]:
    """The templates of the pods that an object makes."""
    spec = each.get("spec", {})
    match each["kind"]:
        case "Deployment":
            yield spec["template"]
        case "CronJob":
            yield spec["jobTemplate"]["spec"]["template"]
        case "RayJob":
            cluster = spec["rayClusterSpec"]
            yield cluster["headGroupSpec"]["template"]
            yield from (group["template"] for group in cluster["workerGroupSpecs"])


def own_containers(template: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A pod's containers that are not the values' own."""
    for container in [*template["spec"].get("initContainers", ()), *template["spec"]["containers"]]:
        if container["name"] in ("service", "ingest", "train", "ray-head", "ray-worker"):
            yield container
