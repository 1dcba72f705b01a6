"""An event counts by the weight of its type times the weight of its row."""

from pathlib import Path

import pytest

from isrf.contract.errors import ConfigError, DataError
from offline.config import build_config
from tests.offline.stages.ingest.test_ingest import ITEMS, Result, ingest_folder
from tests.shops import write_shop

HEADER = "user_id,item_id,timestamp,event,weight"
ROWS = ["u,a,1,view,", "u,b,2,cart,2", "u,c,3,purchase,3", "u,d,4,,1", "u,e,5,view,2", "v,a,1,view,1", "v,b,2,buy,0.5"]
WEIGHTS = ("events.names.buy=purchase", "events.weights.View=0.1", "events.weights.buy=2", "events.weights.cart=0.4")


def ingested(folder: Path, rows: list[str], *assignments: str) -> Result:
    data = write_shop(folder / f"shop{len(list(folder.iterdir()))}", [], ITEMS)
    (data / "interactions.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    return ingest_folder(data, data / "out", *assignments)


def weights(result: Result, table: str) -> list[tuple[str, float]]:
    rows = result.tables[table]
    return sorted(zip(rows["event"].to_list(), rows["weight"].round(9).to_list(), strict=True))


def test_an_event_weighs_its_type_times_its_row(tmp_path: Path) -> None:
    result = ingested(tmp_path, ROWS, *WEIGHTS)
    assert weights(result, "train") == [
        ("cart", 0.8), ("purchase", 1.0), ("purchase", 6.0), ("view", 0.1), ("view", 0.1),
    ]  # fmt: skip
    assert weights(result, "heldout") == [("purchase", 2.0), ("view", 0.2)]
    assert result.report["event_weights"] == {"cart": 0.4, "purchase": 2.0, "view": 0.1}


def test_weights_change_no_row_number_and_no_fingerprint(tmp_path: Path) -> None:
    plain, heavy = ingested(tmp_path, ROWS, WEIGHTS[0]), ingested(tmp_path, ROWS, *WEIGHTS)
    for name, table in plain.tables.items():
        columns = [column for column in table.columns if column != "weight"]
        assert table.select(columns).equals(heavy.tables[name].select(columns))
    for name in ("fingerprint", "order_fingerprint"):
        assert plain.report[name] == heavy.report[name]
    assert plain.report["event_weights"] == {"cart": 1.0, "purchase": 1.0, "view": 1.0}


def test_a_weight_has_bounds_and_the_report_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["u,a,1,purchase,1e300", "u,b,2,purchase,1e-9", "u,c,3,view,1e300", *ROWS[3:5]]
    result = ingested(tmp_path, rows, "events.weights.view=0")
    assert weights(result, "train") == [("purchase", 0.001), ("purchase", 1000.0), ("view", 0.0)]
    said = capsys.readouterr().out
    assert "1 rows weigh more than 1000 and count as 1000" in said
    assert "1 rows weigh less than 0.001 and count as 0.001" in said
    assert 'types of weight 0 teach nothing but their user\'s history: "view" (2 rows)' in said


def test_a_weight_that_makes_no_difference_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alike = [f"u,{item},{time},purchase,5" for time, item in enumerate("abcd")]
    ingested(tmp_path, alike, "events.weights.veiw=0.1", "events.weights.purchase=1")
    said = capsys.readouterr().out
    assert "the column weight has the value 5 in every row" in said
    assert '[events.weights] names "veiw", a type that no row has' in said
    ingested(tmp_path, ROWS, *WEIGHTS)
    assert "weight" not in capsys.readouterr().out


def test_a_shop_where_nothing_counts_is_refused(tmp_path: Path) -> None:
    nothing = [f"events.weights.{kind}=0" for kind in ("view", "cart", "purchase")]
    with pytest.raises(DataError) as caught:
        ingested(tmp_path, ROWS, WEIGHTS[0], *nothing)
    assert caught.value.code == "data.no_weight"
    assert "all 5 training events have the weight 0" in caught.value.message
    assert '"cart", "purchase", "view"' in caught.value.message
    assert "[events.weights]" in caught.value.fix


@pytest.mark.parametrize("setting", ["view=-1", "view=1e9", "view=nan", "view=1e-9", "remove=1", "view.x=1"])
def test_a_bad_weight_names_itself(setting: str) -> None:
    name, _, value = setting.partition("=")
    with pytest.raises(ConfigError) as caught:
        build_config("demo", None, (f"events.weights.{setting}",))
    assert caught.value.code == "config.invalid"
    assert value in caught.value.message
    assert name.partition(".")[0] in caught.value.message
