"""A drawn release is a release: it opens, its goldens replay, and it answers."""

from pathlib import Path

import numpy as np
import synthetic_release as synthetic

from isrf.method.recommend.request import RankingRequest
from offline.config import build_config
from offline.runtime.release import open_release
from tests.offline.stages.train_inputs import SETTINGS


def test_a_drawn_release_answers(tmp_path: Path) -> None:
    settings = (*SETTINGS, "embed.dim=16", "graph.dim=8", "graph.cells_from=50")
    folder = synthetic.make(tmp_path, build_config(assignments=settings), data=None, sizes=synthetic.Sizes(300, 120))
    release = open_release(folder)
    assert release.manifest.evaluation == {"protocol": synthetic.PROTOCOL}
    request = RankingRequest(history=[3, 5, 8], n=10, allowed=np.ones(300, dtype=np.bool_))
    interests = release.recommender.read([request.history], [-1])
    assert (interests.neighbours.similarity > 0).any()
    assert len(release.recommender.rank([request], interests)[0].items) == 10
    assert not (tmp_path / ".work" / "synthetic").exists()
