"""The replay over HTTP measures what the replay without it measures."""

from pathlib import Path

import pytest
from replay import replay
from rich.progress import Progress

from offline.commands.publish import publish
from offline.commands.replay.cut import cut
from offline.commands.replay.run import replay as play
from offline.config import build_config
from tests.service.servers import wait_for_quiet_epoch
from tests.shops import TINY, run_stages, write_shop

DAY = 86_400
ITEMS = [{"item_id": f"i{row}", "title": f"Cup {row % 4} of colour {row % 3}"} for row in range(13)]
EVENTS = [
    (f"u{user:02}", f"i{(user * 5 + step * 7) % 12}", DAY * step + 60 * user) for user in range(20) for step in range(7)
]
LATE = [("new", "i12", 6 * DAY + 2000), ("u03", "i12", 6 * DAY + 3000)]


def test_both_replays_agree_to_three_decimals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = write_shop(tmp_path / "shop", [*EVENTS, *LATE], ITEMS)
    config = build_config("demo", None, (*TINY, "fit=all"))
    before, releases = tmp_path / "before", tmp_path / "releases"
    before.mkdir()
    stream = cut(shop, before, config, since=6.0 * DAY, share=None)
    release = publish(run_stages("export", before, releases, config)["export"], releases)
    monkeypatch.setenv("ISRF_CROWD_EPOCH_S", "60")
    wait_for_quiet_epoch(60, at_least_s=30)
    over_http = replay(shop, releases, since=6.0 * DAY, share=None)["figures"]
    with Progress(disable=True) as progress:
        result = play(release, stream, config=config, frozen=("activity",), epoch_s=3600.0, progress=progress)
    expected = result["variants"]["activity frozen"]
    assert over_http["all"]["requests"] == 22
    assert {kind: round(one["NDCG@10"], 3) for kind, one in over_http.items()} == {
        kind: round(one["NDCG@10"], 3) for kind, one in expected.items()
    }
