"""Runs all stages and publishes what they make; used by `run`, `export` and the replay."""

from pathlib import Path

from isrf.runtime.bundle.manifests import read_manifest
from offline.cli import console, run_stages
from offline.commands.publish import publish
from offline.config import RunConfig
from offline.runtime.release import read_ranker


def train(data: Path, releases: Path, settings: RunConfig) -> Path:
    """Runs all stages and publishes the release; with `fit: all` once to choose the weights, and once on everything."""
    if settings.fit == "all":
        train_settings = settings.model_copy(update={"fit": "train"})
        evaluated = publish(run_stages("export", data, releases, train_settings), releases)
        manifest = read_manifest(evaluated)
        console.print(f"evaluated {evaluated}; now training on everything")
        settings = settings.model_copy(update={"evaluated_release_id": manifest.release_id})
        if not manifest.left_out:  # else the default weights, of all parts that everything together can teach
            ranker = read_ranker(evaluated, manifest)
            stored = None if ranker is None else ranker.stored()
            settings = settings.model_copy(update={"fusion": manifest.fusion, "ranker": stored})
    release = publish(run_stages("export", data, releases, settings), releases)
    console.print(f"published {release}")
    return release
