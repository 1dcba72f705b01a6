"""docs/reference/offline-config.md: every setting of the offline job, out of `offline.config`, and the presets."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from docs.generate.markdown import code, field_sentences, page, prose, table
from docs.generate.values import allowed, default_of
from offline.config import PRESETS, RunConfig

PURPOSES = {
    "events": "What the shop's event types mean. The release keeps it, so the service reads events alike.",
    "ingest": "Reading the shop's files.",
    "reason": "Semantic features of items and users.",
    "embed": "Vectors of texts.",
    "graph": "The semantic interaction graph and the similar-user graph.",
    "semantic_ids": "The codes that name an item to the decoder.",
    "model": "The encoder-decoder (T5) and what it reads.",
    "train": "Training of the encoder-decoder.",
    "search": "The exported search.",
    "evidence": "The evidence lists.",
    "evaluate": "Evaluation, and the choice of fusion weights and ranker.",
}


def sections() -> Iterator[tuple[str, type[BaseModel]]]:
    """Name and class of each section; the first, without a name, is the run's own."""
    yield "", RunConfig
    for name, field in RunConfig.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield name, field.annotation


def silent() -> list[str]:
    """Settings without a sentence, and sections without one."""
    found = [name for name, _ in sections() if name and name not in PURPOSES]
    for section, cls in sections():
        known = field_sentences(cls)
        found += [f"{section}.{name}" for name in _own_fields(section, cls) if not known.get(name)]
    return found


def _own_fields(section: str, cls: type[BaseModel]) -> list[str]:
    named = {name for name, _ in sections()}
    return [name for name in cls.model_fields if section or name not in named]


def _section(section: str, cls: type[BaseModel]) -> str:
    sentences = field_sentences(cls)
    rows = []
    for name in _own_fields(section, cls):
        field = cls.model_fields[name]
        key = f"{section}.{name}" if section else name
        rows.append([code(key), default_of(field.default), allowed(field).words, sentences.get(name, "")])
    return table(("Key", "Default", "Values", "Meaning"), rows)


def _presets() -> str:
    keys = sorted({(section, name) for preset in PRESETS.values() for section, own in preset.items() for name in own})
    return table(
        ("Key", *(code(name) for name in PRESETS)),
        (
            [code(f"{section}.{name}"), *(default_of(_value(own, section, name)) for own in PRESETS.values())]
            for section, name in keys
        ),
    )


def _value(preset: dict[str, dict[str, Any]], section: str, name: str) -> object:
    cls = dict(sections())[section]
    return preset.get(section, {}).get(name, cls.model_fields[name].default)


def offline_config_page() -> str:
    parts = []
    for section, cls in sections():
        parts += [f"## {section or 'The run'}", prose(PURPOSES[section]) if section else "", _section(section, cls)]
    return page(
        "Offline configuration",
        prose(
            "Settings of `python -m offline`. A preset gives the sizes. `--config FILE.toml` comes on top, with one "
            "table for each section. `--set section.key=value` comes last; `none` takes a value away. An unknown key "
            "is refused. The release keeps the configuration that made it, in its manifest."
        ),
        '```toml\n[train]\nepochs = 3\n\n[events.names]\nkauf = "purchase"\n```',
        "## Presets",
        prose("Everything that a preset does not name has the default of the tables below."),
        _presets(),
        *parts,
    )
