"""Runs all stages and publishes what they make; used by `run`, `export` and the replay."""

from pathlib import Path

from isrf.runtime.bundle.manifests import read_manifest
from isrf.runtime.release_store.current import read_current
from isrf.runtime.release_store.locations import StoreUrl
from isrf.runtime.release_store.objects import ObjectStore
from offline.cli import console, run_stages
from offline.commands.publish import publish, publish_to_url
from offline.config import RunConfig
from offline.engine.engine import StageEngine
from offline.engine.local import LOCAL
from offline.runtime.release import read_ranker


def train(
    data: Path,
    releases: Path,
    settings: RunConfig,
    *,
    store: StoreUrl | None = None,
    engine: StageEngine = LOCAL,
) -> Path:
    """Runs all stages and publishes the release; with `fit: all` once to choose the weights, and once on everything.

    Args:
        data: the shop's folder.
        releases: the folder that it publishes to; with `store` only the stages' outputs are below it.
        settings: the configuration.
        store: where in an object store it publishes to.
        engine: runs the stages' pieces.

    Returns:
        The release's folder on this machine.
    """
    if store is not None:
        read_current(ObjectStore(store))  # what cannot work fails now, not after hours of training
    if settings.fit == "all":
        train_settings = settings.model_copy(update={"fit": "train"})
        evaluated = _publish(run_stages("export", data, releases, train_settings, engine), releases, store)
        manifest = read_manifest(evaluated)
        console.print(f"evaluated {evaluated}; now training on everything")
        settings = settings.model_copy(update={"evaluated_release_id": manifest.release_id})
        if not manifest.left_out:  # else the default weights, of all parts that everything together can teach
            ranker = read_ranker(evaluated, manifest)
            stored = None if ranker is None else ranker.stored()
            settings = settings.model_copy(update={"fusion": manifest.fusion, "ranker": stored})
    release = _publish(run_stages("export", data, releases, settings, engine), releases, store)
    console.print(f"published {release if store is None else f'{store}/{read_manifest(release).release_id}'}")
    return release


def _publish(bundle: Path, releases: Path, store: StoreUrl | None) -> Path:
    if store is None:
        return publish(bundle, releases)
    publish_to_url(bundle, store, report=lambda line: console.print(f"  {line}", highlight=False))
    return bundle
