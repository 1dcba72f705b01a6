"""docs/reference/settings.md: every setting of the service, out of `service.settings`, and what compose adds."""

import re
from collections.abc import Iterator
from pathlib import Path

from docs.generate.markdown import code, field_sentences, page, prose, table
from docs.generate.values import allowed, default_of
from service.settings import SECRETS, Settings

COMPOSE = Path(__file__).parents[2] / "docker-compose.yml"
GROUPS = {
    "releases_dir": "Serve",
    "watch_releases_s": "Releases",
    "redis_url": "State",
    "erasure_key": "Users and items",
    "api_keys_file": "Access and metrics",
    "variant": "Model and load",
    "group_ttl_s": "Answers, bodies and log",
}
"""The heading above a field and those after it."""
OPTIONS = {
    "releases_dir": "--releases",
    "bind_host": "--host",
    "bind_port": "--port",
    "workers": "--workers",
    "state_dir": "--state-dir",
    "api_keys_file": "--api-keys-file",
    "demo": "--demo",
}
"""Options of `python -m service` that set the same."""
OF_COMPOSE = {
    "ISRF_PORT": "Port on the host's 127.0.0.1 that leads to the service.",
    "ISRF_REDIS_IMAGE": "Image of Redis, or of Valkey.",
    "ISRF_MEMORY": "Memory limit of the service's container.",
    "ISRF_TRAIN_MEMORY": "Memory limit of a container that trains.",
    "ISRF_LLM_MEMORY": "Memory limit of the LLM server's container.",
    "ISRF_DATA": "Folder of the host with the shop's files, for the profile `train`.",
    "ISRF_PRESET": "Preset of the profile `train`.",
    "ISRF_LLM": "Model of the LLM server, profile `llm`.",
    "HF_TOKEN": "Token for the Hugging Face hub, profile `llm`.",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "Where traces are sent; the service reads it too, with the extra `otel`.",
}


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return "REDIS_URL" if name == "redis_url" else f"ISRF_{name.upper()}"


def silent() -> list[str]:
    """Settings without a sentence, and variables of compose without one."""
    known = field_sentences(Settings)
    ours = {variable(name) for name in Settings.model_fields}
    return [name for name in Settings.model_fields if not known.get(name)] + [
        name for name, _ in compose_variables() if name not in ours and name not in OF_COMPOSE
    ]


def compose_variables() -> Iterator[tuple[str, str]]:
    """Variables that docker-compose.yml reads, with what stands there in their place."""
    found = dict(re.findall(r"\$\{([A-Z_]+)(?::-([^}]*))?\}", COMPOSE.read_text(encoding="utf-8")))
    yield from sorted(found.items())


def settings_page() -> str:
    sentences = field_sentences(Settings)
    parts: list[str] = []
    rows: list[list[str]] = []
    head = ("Variable", "Default", "Values", "Meaning")
    for name, field in Settings.model_fields.items():
        if name in GROUPS:
            parts += [table(head, rows)] if rows else []
            parts.append(f"## {GROUPS[name]}")
            rows = []
        option = f" Option `{OPTIONS[name]}`." if name in OPTIONS else ""
        rows.append(
            [
                code(variable(name)),
                default_of(field.default),
                _values(name, allowed(field).words),
                by_variable(sentences.get(name, "")) + option,
            ]
        )
    parts.append(table(head, rows))
    *first, last = (f"`{name}_FILE`" for name in SECRETS)
    files = f"{', '.join(first)} and {last}"
    return page(
        "Settings",
        prose(
            "Every setting of the service is an environment variable. Some are options of `python -m service` too; an "
            "option wins over the variable. A setting that cannot work ends the start with status 2, before anything "
            f"is opened. Secrets may stand in files: {files} name the file. Settings of the offline job are in "
            "[Offline configuration](offline-config.md)."
        ),
        *parts,
        "## Docker compose",
        prose(
            "`docker-compose.yml` passes these on or uses them itself. Set them in the environment of `docker compose` "
            "or in a file `.env` beside it."
        ),
        table(
            ("Variable", "Default", "Meaning"),
            (
                [code(name), code(value) or "empty", OF_COMPOSE.get(name, "The service's setting above.")]
                for name, value in compose_variables()
            ),
        ),
    )


def by_variable(sentence: str) -> str:
    """Returns a sentence in which the code's names of other settings are their variables."""
    known = Settings.model_fields
    return re.sub(r"`(\w+)`", lambda match: code(variable(match[1])) if match[1] in known else match[0], sentence)


def _values(name: str, words: str) -> str:
    special = {
        "releases_dir": "path or URL",
        "experiment": "`RELEASE_ID:PERCENT%`",
        "rate_limit": "`50/second`, `1000/minute`, …",
        "redis_url": "`redis://…`, `rediss://…`, `unix://…`",
        "log_level": "level",
    }
    return special.get(name, words)
