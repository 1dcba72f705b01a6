"""Compares the release with standard recommenders in one table, on one data folder, with one protocol.

    python benchmarks/quality.py --data DIR [--release RELEASE] [--sasrec] [--work var/quality]

The rows are popularity, last-item transition, item-kNN (settings chosen on validation), SASRec with full softmax by
RecTools (`--sasrec`, in a separate environment: `make benchmarks-venv`), and each channel and the fusion of a release.
The same code scores all rows: leave-one-out, full ranking, bought items excluded. Equal timestamps are in the release's
order (without a release: `--shuffle-ties SEED`, else file order). All rows learn from the training split alone.
Intervals are 95% bootstraps over users; "fused −" is the paired difference to the release's fused lists. Ends in one
JSON line. `--predictions DIR` writes every row's lists for another scorer.
"""

import argparse
import csv
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from intervals import rounded
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from scipy import sparse

from isrf.method.evidence import num_takers
from isrf.method.metrics import bootstrap_difference, bootstrap_mean, hit_rate, ndcg, ranks_of
from offline.cli import progress_bars
from offline.commands.evaluate_release import scorers_of, write_predictions
from offline.commands.reingest import refuse_other_data
from offline.config import RunConfig
from offline.pipeline import run_until
from offline.runtime.release import OpenedRelease, open_release
from offline.stages.evaluate.lists import FUSED, LIST_LENGTH, LOG_LINEAR, WITHOUT_GENERATIVE
from offline.stages.evaluate.measure import Measure
from offline.stages.evaluate.questions import full_ranking
from offline.stages.evaluate.split import EvaluationSplit, load_split

HERE = Path(__file__).parent
SASREC_PYTHON = HERE / ".venv" / "bin" / "python"
CUTOFF = 10
SAMPLES = 1000
BLOCK = 1024
KNN_NEIGHBOURS = (20, 100)
KNN_HISTORY = (5, 50)
"""Recent items of a history that item-kNN uses; chosen on validation, with the number of neighbours."""

Scorer = Callable[[list[list[int]]], NDArray[np.float64]]
"""Returns scores (B, N) for the histories of a block of users; 0 where the scorer has no score."""


class Shop(NamedTuple):
    """The data that every row of the table uses."""

    ingest: Path
    train: pl.DataFrame  # user_index, item_index; a user's rows together, oldest first
    popularity: NDArray[np.float64]  # (N,)
    valid: EvaluationSplit
    test: EvaluationSplit

    @property
    def num_items(self) -> int:
        return len(self.popularity)


def read_shop(data: Path, work: Path, config: RunConfig, progress: Progress) -> Shop:
    """Ingests the data folder and reads the result."""
    ingest = run_until("ingest", data=data, releases=work, config=config, progress=progress)["ingest"]
    train = pl.read_parquet(ingest / "train.parquet", columns=["user_index", "item_index"])
    num_items = pl.scan_parquet(ingest / "items.parquet").select(pl.len()).collect().item()
    users, items = (train[name].to_numpy().astype(np.int64) for name in ("user_index", "item_index"))
    popularity = num_takers(users, items, num_items=num_items).astype(np.float64)
    return Shop(ingest, train, popularity, load_split(ingest, "valid"), load_split(ingest, "test"))


def lists_of(score: Scorer, split: EvaluationSplit, popularity: NDArray[np.float64]) -> NDArray[np.int64]:
    """Returns top lists (R, LIST_LENGTH) by score, then popularity, then row; so popularity fills short lists."""
    by_popularity = np.lexsort((np.arange(len(popularity)), -popularity))
    lists = np.full((len(split.users), LIST_LENGTH), -1, dtype=np.int64)
    for start in range(0, len(split.users), BLOCK):
        rows = slice(start, start + BLOCK)
        scores = score(split.histories[rows])
        for row, bought in enumerate(split.bought[rows]):
            scores[row, bought] = -np.inf
        order = by_popularity[np.argsort(-scores[:, by_popularity], axis=1, kind="stable")[:, :LIST_LENGTH]]
        lists[rows, : order.shape[1]] = np.where(np.isfinite(np.take_along_axis(scores, order, axis=1)), order, -1)
    return lists


def popular(shop: Shop) -> NDArray[np.int64]:
    return lists_of(lambda histories: np.zeros((len(histories), shop.num_items)), shop.test, shop.popularity)


def last_transition(shop: Shop) -> NDArray[np.int64]:
    """Ranks items by how often they directly followed the history's last item in training."""
    users, items = (shop.train[name].to_numpy() for name in ("user_index", "item_index"))
    same = users[1:] == users[:-1]
    shape = (shop.num_items, shop.num_items)
    counts = sparse.csr_array((np.ones(int(same.sum())), (items[:-1][same], items[1:][same])), shape=shape)
    return lists_of(lambda histories: counts[[h[-1] for h in histories]].toarray(), shop.test, shop.popularity)


def item_knn(shop: Shop) -> tuple[NDArray[np.int64], dict[str, int]]:
    """Ranks items by the summed cosine of their users with the history items' users; validation picks settings."""
    interactions = shop.train.unique()
    ones, pairs = (
        np.ones(len(interactions)),
        (interactions["user_index"].to_numpy(), interactions["item_index"].to_numpy()),
    )
    matrix = sparse.csc_array((ones, pairs), shape=(int(pairs[0].max()) + 1, shop.num_items))
    lengths = np.sqrt(np.maximum(matrix.sum(axis=0), 1.0))
    unit = sparse.csr_array(matrix / lengths[None, :])
    cosine = sparse.csr_array(unit.T @ unit)
    cosine.setdiag(0)

    def scorer(neighbours: int, history: int) -> Scorer:
        near = _heaviest(cosine, neighbours)

        def score(histories: list[list[int]]) -> NDArray[np.float64]:
            recent = [h[-history:] for h in histories]
            rows = np.repeat(np.arange(len(recent)), [len(h) for h in recent])
            where = (rows, np.concatenate(recent))
            read = sparse.csr_array((np.ones(len(rows)), where), shape=(len(recent), shop.num_items))
            return np.asarray((read @ near).toarray(), dtype=np.float64)

        return score

    def validated(settings: tuple[int, int]) -> float:
        lists = lists_of(scorer(*settings), shop.valid, shop.popularity)
        return float(ndcg(ranks_of(lists, shop.valid.targets), CUTOFF).mean())

    best = max(((n, h) for n in KNN_NEIGHBOURS for h in KNN_HISTORY), key=validated)
    return lists_of(scorer(*best), shop.test, shop.popularity), {"neighbours": best[0], "history": best[1]}


def _heaviest(matrix: sparse.csr_array, count: int) -> sparse.csr_array:
    """Returns the `count` largest entries of each row; ties go to the lower column."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((matrix.indices, -matrix.data, rows))
    rank = np.arange(len(order)) - matrix.indptr[rows[order]]
    selected = order[(rank < count) & (matrix.data[order] > 0)]
    return sparse.csr_array((matrix.data[selected], (rows[selected], matrix.indices[selected])), shape=matrix.shape)


def sasrec(shop: Shop, work: Path, options: list[str]) -> NDArray[np.int64]:
    """Returns RecTools' lists, made in a separate environment; `work` caches them by a hash of their inputs."""
    if not SASREC_PYTHON.exists():
        sys.exit(f"{SASREC_PYTHON} is missing: make benchmarks-venv")
    events, excluded = _sasrec_inputs(shop, work)
    digest = hashlib.sha256(events.read_bytes() + excluded.read_bytes() + " ".join(options).encode())
    digest.update((HERE / "sasrec.py").read_bytes())
    out = work / f"sasrec-{digest.hexdigest()[:16]}.jsonl"
    if not out.exists():
        part = out.with_suffix(".part")
        files = ["--events", str(events), "--excluded", str(excluded), "--out", str(part)]
        subprocess.run([str(SASREC_PYTHON), str(HERE / "sasrec.py"), *files, *options], check=True)
        part.replace(out)
    lists = np.full((len(shop.test.users), LIST_LENGTH), -1, dtype=np.int64)
    row_of = {user: row for row, user in enumerate(shop.test.users.tolist())}
    with out.open(encoding="utf-8") as file:
        for record in map(json.loads, file):
            lists[row_of[record["user"]], : len(record["items"])] = record["items"]
    return lists


def _sasrec_inputs(shop: Shop, work: Path) -> tuple[Path, Path]:
    """Writes training and validation rows, and the excluded items per test user; never a test row."""
    valid = dict(zip(shop.valid.users.tolist(), shop.valid.targets.tolist(), strict=True))
    events, excluded = work / "events.csv", work / "excluded.csv"
    with events.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("user", "item", "part"))
        for (user,), rows in shop.train.group_by("user_index", maintain_order=True):
            writer.writerows((user, item, "train") for item in rows["item_index"].to_list())
            if user in valid:
                writer.writerow((user, valid[user], "valid"))
    with excluded.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("user", "item"))
        for user, bought in zip(shop.test.users.tolist(), shop.test.bought, strict=True):
            writer.writerows((user, item) for item in bought)
    return events, excluded


def release_rows(
    release: OpenedRelease, shop: Shop, config: RunConfig, progress: Progress
) -> dict[str, NDArray[np.int64]]:
    """Returns the lists of every channel, of the fusion without the generative path, and of the full fusion, last."""
    recommender = release.recommender.without_recent_popularity()
    measure = Measure(recommender=recommender, scorers=scorers_of(release), config=config, progress=progress)
    lists = measure.lists(shop.test, "test")
    fused = {
        "fused without the generative path": lists.pop(WITHOUT_GENERATIVE),
        "log-linear fusion": lists.pop(LOG_LINEAR),
        FUSED: lists.pop(FUSED),
    }
    names = {"dense": "dense path", "generative": "generative path"}
    return {f"{names.get(name, name)} alone": channel_lists for name, channel_lists in lists.items()} | fused


def figures(lists: NDArray[np.int64], fused: NDArray[np.int64] | None, targets: NDArray[np.int64]) -> dict[str, object]:
    """Returns one row: NDCG@10 and HR@10 with intervals, and the paired difference of the fused lists."""
    ranks = ranks_of(lists, targets)

    row: dict[str, object] = {
        f"{name}@{CUTOFF}": rounded(bootstrap_mean(measure(ranks, CUTOFF), samples=SAMPLES, seed=0))
        for name, measure in (("NDCG", ndcg), ("HR", hit_rate))
    }
    if fused is not None and fused is not lists:
        pair = (ndcg(ranks_of(fused, targets), CUTOFF), ndcg(ranks, CUTOFF))
        row["fused_minus"] = rounded(bootstrap_difference(*pair, samples=SAMPLES, seed=0))
    return row


def show(rows: dict[str, dict[str, object]], title: str) -> None:
    table = Table(title=title, title_justify="left")
    for heading in ("", "NDCG@10", "95%", "HR@10", "95%", "fused −", "95%"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, row in rows.items():
        cells = [name]
        for figure in ("NDCG@10", "HR@10", "fused_minus"):
            interval = row.get(figure)
            if isinstance(interval, list):
                cells += [f"{interval[0]:.4f}", f"{interval[1]:.4f} – {interval[2]:.4f}"]
        table.add_row(*cells, style="bold" if name == FUSED else "")
    Console(width=120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--release", type=Path, help="folder of one release made from this data")
    parser.add_argument("--shuffle-ties", type=int, help="seed for the order of ties; leave it out with --release")
    parser.add_argument("--work", type=Path, default=Path("var/quality"), help="folder that is kept between runs")
    parser.add_argument("--predictions", type=Path, help="write every row's lists here, as JSON lines")
    parser.add_argument("--sasrec", action="store_true", help="train SASRec too (20 minutes and more)")
    parser.add_argument(
        "--sasrec-option", action="append", default=[], metavar="--NAME=VALUE", help="an option for sasrec.py"
    )
    arguments = parser.parse_args()
    release = open_release(arguments.release) if arguments.release else None
    config = RunConfig.model_validate(release.manifest.config) if release else RunConfig()
    if release is None:
        config = config.model_copy(
            update={"ingest": config.ingest.model_copy(update={"shuffle_ties": arguments.shuffle_ties})}
        )
    elif arguments.shuffle_ties not in (None, config.ingest.shuffle_ties):
        sys.exit(f"the release orders ties by seed {config.ingest.shuffle_ties}: do not pass --shuffle-ties")
    arguments.work.mkdir(parents=True, exist_ok=True)
    with progress_bars() as progress:
        shop = read_shop(arguments.data, arguments.work, config, progress)
        if release is not None:
            refuse_other_data(shop.ingest, release.manifest, arguments.data)
        knn, knn_settings = item_knn(shop)
        lists = {"popularity": popular(shop), "last-item transition": last_transition(shop), "item-kNN": knn}
        if arguments.sasrec:
            lists["SASRec, full softmax"] = sasrec(shop, arguments.work, arguments.sasrec_option)
        if release is not None:
            lists |= release_rows(release, shop, config, progress)
    if arguments.predictions is not None:
        arguments.predictions.mkdir(parents=True, exist_ok=True)
        ids = [pl.read_parquet(shop.ingest / f"{kind}s.parquet")[f"{kind}_id"].to_list() for kind in ("user", "item")]
        for name, row_lists in lists.items():
            write_predictions(arguments.predictions / f"{name.replace(' ', '-')}.jsonl", shop.test, row_lists, *ids)
    rows = {name: figures(row_lists, lists.get(FUSED), shop.test.targets) for name, row_lists in lists.items()}
    protocol = full_ranking(shop.test, shop.num_items, tie_seed=config.ingest.shuffle_ties).protocol
    show(rows, f"{arguments.data.name} · test · {len(shop.test.users)} users · {protocol}")
    result = {
        "benchmark": "quality",
        "data": arguments.data.name,
        "release_id": release.manifest.release_id if release else None,
        "protocol": protocol,
        "users": len(shop.test.users),
        "item_knn": knn_settings,
        "rows": rows,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
