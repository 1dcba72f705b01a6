"""Tables of the guides that repeat what stands elsewhere: held equal to it."""

import re
from pathlib import Path

import yaml

from offline.config import PRESETS, build_config

ROOT = Path(__file__).parents[2]


def guide(name: str) -> str:
    return (ROOT / "docs" / "guides" / f"{name}.md").read_text(encoding="utf-8")


def test_every_alert_stands_in_the_operators_guide() -> None:
    groups = yaml.safe_load((ROOT / "docker/prometheus/alerts.yaml").read_text(encoding="utf-8"))["groups"]
    alerts = [rule["alert"] for group in groups for rule in group["rules"]]
    section = guide("operate").partition("## Alerts")[2].partition("\n## ")[0]
    assert re.findall(r"^\| ([A-Z]\w+) \|", section, re.MULTILINE) == alerts


def test_presets_are_as_the_training_guide_says() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| (\d+) \| (\d+)", guide("train"), re.MULTILINE)
    configs = {name: build_config(name) for name in PRESETS}
    assert rows == [
        (name, str(one.model.width), str(one.model.num_encoder_layers), str(one.train.epochs))
        for name, one in configs.items()
    ]
