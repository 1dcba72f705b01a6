"""Reads and checks the service's settings from options and environment, before anything is opened.

Every setting is read from `ISRF_<NAME>`, and Redis' address from `REDIS_URL`, as is common. `service.__main__` replaces
values by those of the command line. It opens nothing but files that hold secrets; the app's lifespan opens release and
store.
"""

import hashlib
import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

from limits import parse
from pydantic import AliasChoices, BeforeValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from isrf.contract.errors import ConfigError
from isrf.contract.event_types import excluding
from isrf.contract.manifest import VariantName
from isrf.runtime.release_store.cache import MOST_BYTES
from isrf.runtime.release_store.locations import Location, location_of
from isrf.runtime.secret_files import secret_in_file

SECRETS = {
    "REDIS_URL": "redis_url",
    "ISRF_ERASURE_KEY": "erasure_key",
    "ISRF_SHOPIFY_WEBHOOK_SECRET": "shopify_webhook_secret",
    "ISRF_WOOCOMMERCE_WEBHOOK_SECRET": "woocommerce_webhook_secret",
}
_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:]+\](:[0-9]{1,5})?")
_EXPERIMENT = re.compile(r"(?P<release>[A-Za-z0-9_-][A-Za-z0-9._-]{0,79}):(?P<percent>\d{1,3}(\.\d+)?)%")
_HASHES = 1 << 64

DeviceName: TypeAlias = Literal["auto", "cpu", "cuda"]
"""Where the search runs; `auto`: on a CUDA GPU if ONNX Runtime really runs it there, else on the CPU."""

WebhookItemId: TypeAlias = Literal["product_id", "variant_id", "sku"]
"""Which field of an order's line is the catalogue's item_id."""

LARGEST_BATCH = 16
"""From 20 queries on FAISS uses another kernel, whose results differ in the last bits."""


class Experiment(NamedTuple):
    """An experiment with a second release: the share of users that it serves.

    `ISRF_EXPERIMENT=release_b:10%` serves a tenth of the users from `release_b`. A hash of the release's name and the
    user's id decides: the same on every replica and after every restart. With a larger share, users who had the release
    keep it.
    """

    release_id: str
    share: float  # of the users, above 0 and at most 1

    def holds(self, user_id: str) -> bool:
        """Whether the experiment's release serves this user."""
        text = f"{self.release_id}\n{user_id}".encode("utf-8", "surrogatepass")
        digest = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest())
        return digest < self.share * _HASHES


class Settings(BaseSettings):
    """The service's settings. Unknown names in code are refused; unknown environment variables are ignored."""

    model_config = SettingsConfigDict(env_prefix="ISRF_", frozen=True, extra="forbid", populate_by_name=True)

    releases_dir: Annotated[Location, NoDecode, BeforeValidator(location_of)] = Path("releases")
    """Folder of releases with the link `current`, or one release's own folder; or the URL of either in an object store,
    `s3://bucket/prefix`, `gs://…`, `az://…`, which needs the extra `object-store`."""
    bind_host: str = "127.0.0.1"
    """Address to listen on; without API keys a loopback address only."""
    bind_port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """Port to listen on; 0 takes a free one."""
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    """Processes that serve; more than one needs `REDIS_URL`."""

    watch_releases_s: Annotated[float, Field(ge=0, le=3600)] = 5.0
    """Seconds between two looks at `current` for another release; with 0 only `POST /admin/reload` looks."""
    open_deadline_s: Annotated[float, Field(gt=0, le=86_400)] = 300.0
    """Seconds in which a new release must open, else it is refused and the old one stays. A large release on a slow
    disk takes minutes."""
    release_cache_dir: Path | None = None
    """Folder on a local disk for releases from an object store; without it `release-cache` in `state_dir`. Processes of
    one machine may share it: one downloads, the others wait."""
    release_cache_bytes: Annotated[int, Field(ge=1 << 20)] = MOST_BYTES
    """The most bytes in that folder. Releases that were used longest ago are removed, never the served and the newest;
    a release that does not fit is refused."""
    experiment: Annotated[Experiment | None, NoDecode] = None
    """`release_id:10%`: a second release beside `current`, and the share of the users that it answers."""

    redis_url: SecretStr | None = Field(
        default=None, validation_alias=AliasChoices("redis_url", "REDIS_URL", "ISRF_REDIS_URL")
    )
    """Where user state is kept; without it in the embedded store of one process (`state_dir`)."""
    redis_cluster: bool = False
    """Whether `REDIS_URL` names a node of a Redis cluster."""
    redis_read_timeout_s: Annotated[float, Field(gt=0, le=10)] = 0.15
    """Seconds that a read waits for Redis; then the answer is made without what Redis knows of the user. A request's
    reads must stay below 250 ms."""
    redis_write_timeout_s: Annotated[float, Field(gt=0, le=60)] = 3.0
    """Seconds that a write waits for Redis; then it is answered 503."""
    redis_durability: Literal["require", "warn"] = "require"
    """What to do with a Redis that would lose accepted events (`appendonly`, `appendfsync`, `maxmemory-policy`):
    `require` refuses to start on it, `warn` says so in the log, in `/readyz` and in `isrf_store_durable`."""
    redis_wait_replicas: Annotated[int, Field(ge=0, le=16)] = 0
    """Replicas of Redis that must have a write before it is answered. A write that they do not have in time is answered
    503; sent again, it counts once if it has an `event_id` or a `timestamp`."""
    redis_wait_timeout_s: Annotated[float, Field(gt=0, le=60)] = 1.0
    """Seconds that a write waits for those replicas; must be below `redis_write_timeout_s`."""
    state_dir: Path = Path("var/state")
    """Folder of the embedded store: its database and its locks."""

    erasure_key: Annotated[SecretStr, Field(min_length=16)] | None = None
    """Secret under which the store notes erased users; without it the store makes and keeps its own. It cannot be
    changed later."""
    crowd_epoch_s: Annotated[float, Field(gt=0, le=60)] = 30.0
    """Seconds between two updates of who can be a similar user: recently active users join, erased users leave."""
    items_poll_s: Annotated[float, Field(gt=0, le=60)] = 1.0
    """Seconds between two looks for items that the shop changed on another replica."""
    live_poll_s: Annotated[float, Field(gt=0, le=60)] = 0.25
    """Seconds between two reads of newly accepted events, which each replica counts for everybody's recommendations."""
    live_evidence_mb: Annotated[int, Field(ge=0, le=100_000)] = 150
    """Megabytes for the accepted events that each worker counts, about 10,000 events each; the oldest leave. What is
    counted of them takes about 25 MB more. With 0 events move nobody's recommendations but their user's."""
    max_added_items: Annotated[int, Field(ge=0, le=1_000_000)] = 10_000
    """The most items that may be added before a release holds them; each costs a row in every replica's tables."""
    placements_file: Path | None = None
    """TOML file with placements, a table each, which count where the shop stored none of the same name
    (`PUT /placements/{placement}`); read at the start."""

    api_keys_file: Path | None = None
    """File made by `python -m service keys`; without it the service runs in development mode, on loopback."""
    rate_limit: str = "10000/minute"
    """How often a key without a rate of its own may call; empty for no limit. It does not count in development mode."""
    cors_origins: Annotated[frozenset[str], NoDecode] = frozenset()
    """Origins whose pages may read answers in a browser, `https://shop.example,…`; empty for none."""
    beacon_origins: Annotated[frozenset[str], NoDecode] = frozenset()
    """Origins whose pages may send events of their visitors (`/beacon`, `/pixel.gif`), `https://shop.example,…`; empty
    for none."""
    beacon_rate: str = "120/minute"
    """How often an address may send beacons, beside the rate of its key, and as often webhooks with a wrong signature;
    empty for no limit. Ten further events of a beacon count as one more. Beacons do not count in development mode."""
    shopify_webhook_secret: Annotated[SecretStr, Field(min_length=8)] | None = None
    """Secret that Shopify signs webhooks with (`/webhooks/shopify`); without it they are refused."""
    woocommerce_webhook_secret: Annotated[SecretStr, Field(min_length=8)] | None = None
    """Secret that WooCommerce signs webhooks with (`/webhooks/woocommerce`); without it they are refused."""
    webhook_item_id: WebhookItemId = "product_id"
    """Which field of an order's line is the catalogue's item_id; a product without variants is its own `variant_id`
    in WooCommerce."""
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 0
    """Port that serves `/metrics` without a key, for a network that callers cannot reach; 0 for no such port."""
    metrics_host: str = "127.0.0.1"
    """Address that `metrics_port` listens on."""
    exclude_events: Annotated[frozenset[str], NoDecode] = frozenset()
    """Event types that take their item off the user's list, beside `purchase`, events without a type, and those of
    `[events] exclude` in the offline configuration."""

    variant: VariantName = "fp32"
    """Which form of the search is served; a release holds `int8` and `fp16` where it was made with `search.int8`,
    `search.fp16`."""
    device: DeviceName = "auto"
    """Where the search runs; `auto` takes a GPU that ONNX Runtime really runs it on, else the CPU."""
    inference_threads: Annotated[int, Field(ge=0, le=256)] = 0
    """Runs of the model at once; 0 takes the CPUs that this process may really use, shared among the workers."""
    max_batch: Annotated[int, Field(ge=0, le=LARGEST_BATCH)] = 0
    """Requests that one run of the model may answer; 0 measures at the start how many it answers soon enough."""
    max_waiting: Annotated[int, Field(ge=0, le=10_000)] = 0
    """Requests that may wait for the model, beyond which callers are refused at once; 0 for a batch per thread, at
    least 16."""
    max_in_progress: Annotated[int, Field(ge=1, le=100_000)] = 128
    """Requests of any kind that may be under way in a worker, beyond which callers are refused at once."""
    deadline_s: Annotated[float, Field(gt=0, le=60)] = 1.0
    """Seconds that a request may wait for the model; then it is refused."""
    group_ttl_s: Annotated[int, Field(ge=1)] = 3600
    """Seconds that the store keeps a user's computed interests."""
    answer_ttl_s: Annotated[int, Field(ge=1)] = 300
    """Seconds that an answer is kept for a user who has not changed."""
    answer_cache_mb: Annotated[int, Field(ge=0, le=10_000)] = 16
    """Megabytes of answers that each worker keeps for users who have not changed; 0 computes every answer anew."""
    recommendation_ttl_s: Annotated[int, Field(ge=1, le=86_400)] = 900
    """Seconds in which the next page of a list can be read and a click is counted for it (about 1 KB each in Redis)."""
    max_body_bytes: Annotated[int, Field(ge=1024)] = 2 * 1024 * 1024
    """The largest body of a request, imports aside; a larger one is answered 413."""
    log_level: str = "INFO"
    """Lowest level that is logged: DEBUG, INFO, WARNING, ERROR or CRITICAL."""
    demo: bool = False
    """Serves a page to try the service on, at `/demo`; in development mode only."""
    studio: bool = True
    """Serves the merchandiser's page at `/studio`. Its files need no key and hold nothing secret; every call that it
    makes needs a key of the role admin."""

    @field_validator("exclude_events", "cors_origins", "beacon_origins", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = value.split(",")
        return frozenset(str(name).strip().lower() for name in value if str(name).strip())

    @field_validator("exclude_events")
    @classmethod
    def _types(cls, value: frozenset[str]) -> frozenset[str]:
        return frozenset(excluding(name) for name in value)

    @field_validator("cors_origins", "beacon_origins")
    @classmethod
    def _origins(cls, value: frozenset[str]) -> frozenset[str]:
        for origin in value:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin[:80]!r} is not an origin; write https://host[:port], one for each")
        return value

    @field_validator("rate_limit", "beacon_rate")
    @classmethod
    def _rate(cls, value: str) -> str:
        return checked_rate(value) if value else value

    @field_validator("experiment", mode="before")
    @classmethod
    def _experiment(cls, value: Any) -> Any:
        return (read_experiment(value) if value.strip() else None) if isinstance(value, str) else value

    @field_validator("api_keys_file", *SECRETS.values(), mode="before")
    @classmethod
    def _empty_is_unset(cls, value: Any) -> Any:
        return None if value == "" else value

    @field_validator("log_level")
    @classmethod
    def _level(cls, value: str) -> str:
        if value.upper() not in {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}:
            raise ValueError("is none of DEBUG, INFO, WARNING, ERROR, CRITICAL")
        return value.upper()


def load_settings(**overrides: Any) -> Settings:
    """Reads settings from the environment and `overrides` (None: not set); `ConfigError` where one is invalid."""
    overridden = {name: value for name, value in overrides.items() if value is not None}
    try:
        settings = Settings(**(_from_files() | overridden))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            "config.invalid",
            f"the setting {where!r} is invalid: {first['msg']}.",
            fix="See `python -m service --help`; every option is also read from the environment (ISRF_…, REDIS_URL).",
        ) from None
    _check_combinations(settings)
    return settings


def _from_files() -> dict[str, str]:
    """Returns the secrets that are in files, by the setting's name."""
    found = {name: secret_in_file(variable) for variable, name in SECRETS.items()}
    return {name: text for name, text in found.items() if text is not None}


def _check_combinations(settings: Settings) -> None:
    if settings.api_keys_file is None and not is_loopback(settings.bind_host):
        raise ConfigError(
            "config.bind_without_keys",
            f"without API keys the service runs in development mode and binds to loopback only, not to "
            f"{settings.bind_host!r}.",
            fix="Make a key with `python -m service keys add --file FILE --role write` and set "
            "ISRF_API_KEYS_FILE=FILE, or use --host 127.0.0.1 (or ::1).",
        )
    if settings.demo and settings.api_keys_file is not None:
        raise ConfigError(
            "config.demo_with_keys",
            "the page at /demo sends no key and shows shoppers to everyone who opens it, and API keys are set.",
            fix="Unset ISRF_DEMO (or leave out --demo), or run it on loopback without API keys.",
        )
    if settings.variant == "int8" and settings.device == "cuda":
        raise ConfigError(
            "config.int8_on_gpu",
            "the 8-bit search needs instructions of a CPU; a GPU would hand its products back to the CPU.",
            fix="Set ISRF_VARIANT=fp16 (or fp32) for the GPU, or ISRF_DEVICE=cpu.",
        )
    if settings.redis_wait_replicas and settings.redis_wait_timeout_s >= settings.redis_write_timeout_s:
        raise ConfigError(
            "config.redis_wait",
            f"a write waits {settings.redis_wait_timeout_s:g} s for replicas, but times out after "
            f"{settings.redis_write_timeout_s:g} s.",
            fix="Set ISRF_REDIS_WAIT_TIMEOUT_S below ISRF_REDIS_WRITE_TIMEOUT_S.",
        )
    if settings.workers > 1 and settings.redis_url is None:
        raise ConfigError(
            "config.embedded_workers",
            f"ISRF_WORKERS is {settings.workers}, and the embedded store serves one process.",
            fix="Set REDIS_URL, or use --workers 1.",
        )


def is_loopback(host: str) -> bool:
    """Whether an address is a loopback address; of names only `localhost` counts as one."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def read_experiment(text: str) -> Experiment:
    """Reads `<release_id>:<percent>%`; raises `ValueError`."""
    found = _EXPERIMENT.fullmatch(text.strip())
    share = float(found["percent"]) / 100 if found else 0.0
    if found is None or not 0 < share <= 1:
        raise ValueError(f"{text[:100]!r} is not an experiment; write release_id:10%, above 0% and at most 100%")
    return Experiment(found["release"], share)


def checked_rate(text: str) -> str:
    """Returns the text of a rate; raises `ValueError` where it is not one."""
    try:
        item = parse(text)
    except ValueError:
        raise ValueError(f"{text[:40]!r} is not a rate; write it as 50/second or 1000/minute") from None
    if item.amount < 1:
        raise ValueError("a rate of 0 allows no call; drop the key instead")
    return text
