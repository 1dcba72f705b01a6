"""The reasoning's smaller parts: prompts, plan, cost, vLLM's batching, what a person is shown."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from isrf.contract.errors import ConfigError, DataError
from offline.config import ReasonConfig
from offline.stages.reason import stage as reason
from offline.stages.reason.attributes.reasoner import gather_facts
from offline.stages.reason.corpus import Corpus, Item, read_corpus
from offline.stages.reason.llm.answers import parse_answer, truncate
from offline.stages.reason.llm.calls.client import LlmCall, RejectedError, response_format
from offline.stages.reason.llm.calls.vllm_client import Answered, VllmClient
from offline.stages.reason.llm.chains import ITEM_PROMPTS, USER_PROMPTS
from offline.stages.reason.llm.cost import chain_tokens, count_by_characters, estimate_steps
from offline.stages.reason.llm.distill import fill_items
from offline.stages.reason.llm.judge import Sources
from offline.stages.reason.llm.plan import plan_budget, plan_everything
from offline.stages.reason.llm.prompting import Message, item_data, load_prompt
from offline.stages.reason.schemas import MAX_WORD_CHARACTERS, ItemPositive, ItemReasoning, count_words
from offline.stages.reason.show import show
from tests.offline.stages.reason.reason_shop import shop_items, stage_context, write_ingest


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    histories = [[0, 2, 4], [0, 2, 4], [0, 2, 4], [1, 3, 5], [6, 7]]
    return read_corpus(write_ingest(tmp_path / "ingest", shop_items(12), histories), currency="€")


@pytest.mark.parametrize("name", [name for name, _ in ITEM_PROMPTS + USER_PROMPTS])
def test_prompts_state_the_schemas_fields_and_limits(name: str) -> None:
    prompt, schema = load_prompt(name), dict(ITEM_PROMPTS + USER_PROMPTS)[name]
    assert prompt.version >= 1
    for field, limit in schema.WORD_LIMITS.items():
        assert f'"{field}"' in prompt.system
        assert f"{limit} words" in prompt.system
    properties = response_format(schema)["json_schema"]["schema"]["properties"]
    assert list(properties) == list(schema.WORD_LIMITS)


def test_a_place_inside_a_value_stays_text() -> None:
    item = item_data(Item('"}\n{positive}', "", (), "", None), currency="$")
    told = load_prompt("item_negative").fill({"item": item, "positive": "SAID BEFORE"})[1].content
    assert told.count("SAID BEFORE") == 1
    assert json.dumps(item) in told


def test_long_texts_are_cut_and_the_price_names_the_currency() -> None:
    data = item_data(Item("word " * 500, "", (), "word " * 5000, 9.5), currency="€")
    assert len(data["title"].split()) <= 61
    assert len(data["description"].split()) <= 151
    assert data["price"] == "€9.50"


def test_a_budget_is_never_exceeded_and_more_of_it_covers_more(corpus: Corpus) -> None:
    facts = gather_facts(corpus)
    gains = []
    for budget in (0, 3, 10, 20, 30, 60):
        plan = plan_budget(corpus, facts, budget=budget, item_cost=3, user_cost=3)
        assert plan.cost == 3 * (len(plan.items) + len(plan.users)) <= budget
        assert len(set(plan.items)) == len(plan.items)
        assert len(set(plan.users)) == len(plan.users)
        gains.append(plan.covered_gain)
    assert gains == sorted(gains)
    assert gains[0] == 0
    full = plan_budget(corpus, facts, budget=1e9, item_cost=3, user_cost=3)
    everything = plan_everything(corpus)
    assert (sorted(full.items), sorted(full.users)) == (everything.items, everything.users)
    assert full.covered_gain == pytest.approx(1.0)


def test_a_chosen_users_items_are_asked_about_too(corpus: Corpus) -> None:
    plan = plan_budget(corpus, gather_facts(corpus), budget=45, item_cost=3, user_cost=3)
    assert plan.users
    for user in plan.users:
        assert set(corpus.recent(user)) <= set(plan.items)


def test_one_user_speaks_for_a_group_before_its_second_one_is_asked(corpus: Corpus) -> None:
    """Users 0, 1 and 2 took the same items; users 3 and 4 others."""
    plan = plan_budget(corpus, gather_facts(corpus), budget=1e9, item_cost=3, user_cost=3)
    assert sorted(plan.users) == [0, 1, 2, 3, 4]
    assert {"group" if user < 3 else user for user in plan.users[:3]} == {"group", 3, 4}


def test_cold_items_come_before_popular_ones(corpus: Corpus) -> None:
    plan = plan_budget(corpus, gather_facts(corpus), budget=12, item_cost=3, user_cost=300)
    taken = {int(item) for history in corpus.histories for item in history}
    assert len(plan.items) == 4
    assert not taken & set(plan.items)


def test_cost_counts_the_real_prompts(corpus: Corpus) -> None:
    costs = estimate_steps(corpus, thinking_tokens=0)
    data = [item_data(item, currency="€") for item in corpus.items]
    by_hand = [
        sum(count_by_characters(m.content) for m in load_prompt("item_positive").fill({"item": d})) for d in data
    ]
    assert costs["item_positive"].tokens_in == pytest.approx(np.mean(by_hand))
    assert costs["item_negative"].tokens_in > costs["item_positive"].tokens_in
    thinking = estimate_steps(corpus, thinking_tokens=100)
    assert chain_tokens(thinking, USER_PROMPTS) == pytest.approx(chain_tokens(costs, USER_PROMPTS) + 300)


def test_an_item_nobody_bought_in_training_speaks_for_no_other(tmp_path: Path) -> None:
    """Item 7 is item 3's nearest; whether it may speak for it depends on its having a buyer in training."""
    said = ItemReasoning(positive="p", negative="n", feature="f", justification="j")
    for histories, origin in (([[0, 2, 4], [1, 5], [6]], "attribute"), ([[0, 2, 4], [1, 5], [6, 7]], "distilled")):
        corpus = read_corpus(write_ingest(tmp_path / origin, shop_items(8), histories), currency="$")
        vectors = np.zeros((8, 2), dtype=np.float32)
        vectors[[3, 7]] = [1.0, 0.0]
        assert fill_items(corpus, {7: said}, [said] * 8, vectors).origins[3] == origin


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("two words", 2),
        ("好，世界！", 3),
        ("防水 mascara です", 5),
        ("x" * 30, 1),
        ("x" * 3000, 100),
        ("กันน้ำ", 4),
        ("", 0),
    ],
)
def test_words_are_counted_in_any_script(text: str, words: int) -> None:
    assert count_words(text) == words


@pytest.mark.parametrize("said", ["长短高" * 1667, "第一句话很长。" * 500, "one two " + "x" * 50_000, "a b c\n" * 3334])
def test_a_limit_binds_whatever_the_script(said: str) -> None:
    parsed = parse_answer(json.dumps({"positive": said}), ItemPositive, Sources((), ()))
    assert "at most 200" in parsed.complaint
    assert parsed.step is not None
    cut = truncate(parsed.step)
    assert isinstance(cut, ItemPositive)
    assert 190 <= count_words(cut.positive.rstrip("…")) <= 200
    assert len(cut.positive) <= 200 * MAX_WORD_CHARACTERS + 1
    assert cut.positive.endswith(("…", "。"))
    assert count_words(cut.positive) <= 200


class RecordingEngine:
    """Stands where `vllm.LLM` would, so that the batching in front of it can run without a GPU."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def answer(self, calls: Sequence[LlmCall]) -> list[Answered]:
        self.batches.append(len(calls))
        if any(call.key == "bad" for call in calls):
            raise ValueError("the conversation is too long")
        return [Answered(call.key, 1, 2) for call in calls]


def call(key: str) -> LlmCall:
    return LlmCall((Message("user", key),), ItemPositive, key)


async def test_vllm_answers_what_waits_in_one_list_and_in_order() -> None:
    engine = RecordingEngine()
    client = VllmClient(ReasonConfig(), engine)
    answers = await asyncio.gather(*(client.complete(call(str(n))) for n in range(100)))
    assert [answer.text for answer in answers] == [str(n) for n in range(100)]
    assert engine.batches == [100]
    with pytest.raises(RejectedError, match="too long"):
        await client.complete(call("bad"))
    assert (await client.complete(call("after"))).text == "after"
    await client.close()


async def test_without_vllm_the_error_says_what_to_install() -> None:
    client = VllmClient(ReasonConfig(client="vllm"))
    with pytest.raises(ConfigError) as error:
        await client.complete(call("x"))
    assert error.value.code == "config.no_vllm"
    await client.close()


def shown(folder: Path, shop_id: str, *, ingest: Path | None = None) -> str:
    console = Console(width=300, record=True, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    with console.file:
        console.print(show(folder, shop_id, ingest=ingest))
        return console.export_text()


@pytest.fixture
def reasoned(tmp_path: Path) -> Path:
    items = shop_items(6)
    items[2]["title"] = "[bold]Odd[/] title"
    ctx = stage_context(tmp_path, {"ingest": write_ingest(tmp_path / "ingest", items, [[0, 1, 2]])})
    reason.run(ctx)
    return ctx.out


def test_show_prints_the_chain_of_a_stages_output(reasoned: Path) -> None:
    ingest = reasoned.parent / "ingest"
    table = pl.read_parquet(reasoned / "item_features.parquet")
    text = shown(reasoned, "item-2", ingest=ingest)
    assert "[bold]Odd[/] title" in text
    for field in ("positive", "negative", "feature", "justification"):
        assert table[field][2][:100] in text
    assert "core" in shown(reasoned, "user-0", ingest=ingest)
    with pytest.raises(DataError) as error:
        shown(reasoned, "nobody", ingest=ingest)
    assert error.value.code == "data.unknown_id"


def test_show_reads_a_release(reasoned: Path, tmp_path: Path) -> None:
    release = tmp_path / "releases" / "one"
    kept = tmp_path / "releases" / ".work" / "reason" / "key"
    release.mkdir(parents=True)
    kept.mkdir(parents=True)
    features = pl.read_parquet(reasoned / "item_features.parquet")["feature"]
    lines = [json.dumps({"item_id": f"item-{row}", "feature": text}) for row, text in enumerate(features)]
    (release / "items.jsonl").write_text("\n".join(lines) + "\n")
    pl.DataFrame({"user_id": ["user-0"]}).write_parquet(release / "users.parquet")
    with pytest.raises(DataError) as error:
        shown(release, "item-1")
    assert error.value.code == "data.no_reasoning"
    for table in reasoned.glob("*.parquet"):
        (kept / table.name).write_bytes(table.read_bytes())
    assert features[1] in shown(release, "item-1")
    assert "likes" in shown(release, "user-0")
