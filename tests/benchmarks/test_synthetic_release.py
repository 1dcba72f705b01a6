"""A drawn release is a release: it opens, its goldens replay, and it answers."""

import importlib.util
import sys
from pathlib import Path

import numpy as np

from isrf.recommend import RankRequest
from offline.config import build_config
from offline.release import open_release
from tests.offline.train_inputs import SETTINGS

PATH = Path(__file__).parents[2] / "benchmarks" / "synthetic_release.py"
spec = importlib.util.spec_from_file_location("synthetic_release", PATH)
assert spec is not None
assert spec.loader is not None
synthetic = importlib.util.module_from_spec(spec)
sys.modules["synthetic_release"] = synthetic
spec.loader.exec_module(synthetic)


def test_a_drawn_release_answers(tmp_path: Path) -> None:
    settings = (*SETTINGS, "embed.dim=16", "graph.dim=8", "graph.cells_from=50")
    folder = synthetic.make(tmp_path, build_config(assignments=settings), data=None, sizes=synthetic.Sizes(300, 120))
    release = open_release(folder)
    assert release.manifest.evaluation == {"protocol": synthetic.PROTOCOL}
    request = RankRequest(history=[3, 5, 8], n=10, allowed=np.ones(300, dtype=np.bool_))
    interests = release.recommender.read([request.history], [-1])
    assert (interests.neighbours.similarity > 0).any()
    assert len(release.recommender.rank([request], interests)[0].items) == 10
    assert not (tmp_path / ".work" / "synthetic").exists()
