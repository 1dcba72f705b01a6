"""A task that works until it is cancelled is ended, also where a cancellation is swallowed on the way."""

import asyncio

import pytest

from service.inference import task_cancellation as ending
from service.inference.task_cancellation import end


async def swallows(times: int) -> None:
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            times -= 1
            if times < 0:
                raise


@pytest.mark.parametrize("times", [0, 1, 3])
async def test_a_swallowed_cancellation_is_said_again(times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "AGAIN_S", 0.01)
    task = asyncio.create_task(swallows(times))
    await asyncio.sleep(0)
    await end(task)
    assert task.cancelled()


async def test_whoever_never_hears_is_left_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "AGAIN_S", 0.01)
    task = asyncio.create_task(swallows(20))
    await asyncio.sleep(0)
    await end(task, within_s=0.05)
    assert not task.done()
    await end(task)


async def test_what_failed_by_itself_ends_quietly() -> None:
    async def fails() -> None:
        raise ValueError

    task = asyncio.create_task(fails())
    await asyncio.sleep(0)
    await end(task)
    assert isinstance(task.exception(), ValueError)
