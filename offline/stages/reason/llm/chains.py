"""The chains: three steps about an item and three about a user; each step's answer goes into the next prompt."""

from typing import Any

from offline.stages.reason.llm.step_runner import StepRunner
from offline.stages.reason.schemas import (
    ItemFeature,
    ItemNegative,
    ItemPositive,
    ItemReasoning,
    Step,
    UserCore,
    UserDislikes,
    UserLikes,
    UserReasoning,
)

ITEM_PROMPTS: tuple[tuple[str, type[Step]], ...] = (
    ("item_positive", ItemPositive),
    ("item_negative", ItemNegative),
    ("item_feature", ItemFeature),
)
USER_PROMPTS: tuple[tuple[str, type[Step]], ...] = (
    ("user_likes", UserLikes),
    ("user_dislikes", UserDislikes),
    ("user_core", UserCore),
)


async def reason_item(runner: StepRunner, item: dict[str, Any]) -> ItemReasoning:
    """Asks who would enjoy an item, who would not, and for its semantic feature; raises `StepFailedError`."""
    positive = await runner.ask("item_positive", ItemPositive, {"item": item})
    context = {"item": item} | positive.model_dump()
    negative = await runner.ask("item_negative", ItemNegative, context)
    context |= negative.model_dump()
    feature = await runner.ask("item_feature", ItemFeature, context)
    return ItemReasoning(**positive.model_dump(), **negative.model_dump(), **feature.model_dump())


async def reason_user(runner: StepRunner, items: list[dict[str, Any]]) -> UserReasoning:
    """Asks for a user's likes, dislikes and core preference; `items` are newest first; raises `StepFailedError`."""
    likes = await runner.ask("user_likes", UserLikes, {"items": items})
    context = {"items": items} | likes.model_dump()
    dislikes = await runner.ask("user_dislikes", UserDislikes, context)
    context |= dislikes.model_dump()
    core = await runner.ask("user_core", UserCore, context)
    return UserReasoning(**likes.model_dump(), **dislikes.model_dump(), **core.model_dump())
