from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from threading import Event

import pytest

from clothing_classifier.service.batching import Batcher


class Recorder:
    """Doubles numbers, and keeps each batch; the first one can be held up."""

    def __init__(self, hold: bool = False) -> None:
        self.batches: list[list[int]] = []
        self.go_on = Event()
        if not hold:
            self.go_on.set()

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.go_on.wait(10)
        if 13 in items:
            raise ArithmeticError("unlucky")
        return [2 * item for item in items]


async def until(condition: object) -> None:
    assert callable(condition)
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it never came to pass")


def test_what_waits_while_a_batch_is_computed_is_the_next_batch() -> None:
    async def check() -> None:
        compute = Recorder(hold=True)
        batcher = Batcher(compute, most=4)
        batcher.start()
        first = asyncio.create_task(batcher.submit(1))
        await until(lambda: compute.batches)
        others = [asyncio.create_task(batcher.submit(number)) for number in range(2, 9)]
        await until(lambda: batcher.waiting == 7)
        compute.go_on.set()
        assert list(await asyncio.gather(first, *others)) == [2, 4, 6, 8, 10, 12, 14, 16]
        assert compute.batches == [[1], [2, 3, 4, 5], [6, 7, 8]]
        await batcher.stop()

    asyncio.run(check())


def test_what_is_on_its_way_is_waited_for_and_no_longer_than_needed() -> None:
    async def check() -> None:
        compute = Recorder()
        coming = [1]
        batcher = Batcher(compute, most=4, coming=lambda: coming[0], linger=3600)
        batcher.start()
        first = asyncio.create_task(batcher.submit(1))
        await asyncio.sleep(0.05)
        assert compute.batches == []
        coming[0] = 0
        assert await batcher.submit(2) == 4
        assert await first == 2
        assert compute.batches == [[1, 2]]
        await batcher.stop()

    asyncio.run(check())


def test_what_never_comes_is_not_waited_for_long() -> None:
    async def check() -> None:
        compute = Recorder()
        batcher = Batcher(compute, most=4, coming=lambda: 1, linger=0.01)
        batcher.start()
        assert await batcher.submit(1) == 2
        await batcher.stop()

    asyncio.run(check())


def test_who_went_away_is_not_computed() -> None:
    async def check() -> None:
        compute = Recorder(hold=True)
        batcher = Batcher(compute, most=4)
        batcher.start()
        first = asyncio.create_task(batcher.submit(1))
        await until(lambda: compute.batches)
        gone = asyncio.create_task(batcher.submit(2))
        stays = asyncio.create_task(batcher.submit(3))
        await until(lambda: batcher.waiting == 2)
        gone.cancel()
        await asyncio.sleep(0)
        compute.go_on.set()
        assert list(await asyncio.gather(first, stays)) == [2, 6]
        assert compute.batches == [[1], [3]]
        await batcher.stop()

    asyncio.run(check())


@pytest.mark.parametrize("item", [2, 13])
def test_who_goes_away_while_the_batch_is_computed_takes_no_other_along(item: int) -> None:
    async def check() -> None:
        compute = Recorder(hold=True)
        batcher = Batcher(compute, most=1)
        batcher.start()
        gone = asyncio.create_task(batcher.submit(item))
        await until(lambda: compute.batches)
        gone.cancel()
        await asyncio.sleep(0)
        compute.go_on.set()
        assert await asyncio.wait_for(batcher.submit(3), 5) == 6
        await batcher.stop()

    asyncio.run(check())


def test_a_full_batch_waits_for_nothing() -> None:
    async def check() -> None:
        compute = Recorder()
        batcher = Batcher(compute, most=2, coming=lambda: 1, linger=3600)
        batcher.start()
        both = asyncio.gather(batcher.submit(1), batcher.submit(2))
        assert list(await asyncio.wait_for(both, 5)) == [2, 4]
        await batcher.stop()

    asyncio.run(check())


def test_a_failure_is_told_to_all_of_its_batch_and_the_next_goes_on() -> None:
    async def check() -> None:
        batcher = Batcher(Recorder(), most=4, coming=lambda: 1, linger=0.05)
        batcher.start()
        results = await asyncio.gather(batcher.submit(13), batcher.submit(2), return_exceptions=True)
        assert [type(result) for result in results] == [ArithmeticError, ArithmeticError]
        assert await batcher.submit(5) == 10
        await batcher.stop()

    asyncio.run(check())


def test_a_batch_without_a_result_for_each_is_a_failure_and_the_next_goes_on() -> None:
    async def check() -> None:
        batcher = Batcher[int, int](lambda items: [2 * item for item in items if item != 13], most=4)
        batcher.start()
        with pytest.raises(ValueError, match="shorter"):
            await batcher.submit(13)
        assert await batcher.submit(5) == 10
        await batcher.stop()

    asyncio.run(check())


def test_stopping_lets_nobody_wait_for_ever() -> None:
    async def check() -> None:
        compute = Recorder(hold=True)
        batcher = Batcher(compute, most=1)
        batcher.start()
        tasks = [asyncio.create_task(batcher.submit(number)) for number in (1, 2)]
        await until(lambda: compute.batches)
        compute.go_on.set()
        await batcher.stop()
        _, waiting = await asyncio.wait(tasks, timeout=5)
        assert not waiting

    asyncio.run(check())


def test_what_is_computed_when_it_stops_is_not_waited_for() -> None:
    async def check() -> None:
        compute = Recorder(hold=True)
        batcher = Batcher(compute, most=1)
        batcher.start()
        task = asyncio.create_task(batcher.submit(1))
        await until(lambda: compute.batches)
        threading.Timer(0.05, compute.go_on.set).start()  # threads end with what they are at
        await batcher.stop()
        await asyncio.wait([task], timeout=5)
        assert task.cancelled()
        assert not any(thread.name.startswith("model") for thread in threading.enumerate())

    asyncio.run(check())


def test_so_many_are_computed_side_by_side_and_the_others_in_their_order() -> None:
    async def check() -> None:
        compute = Recorder(hold=True)
        batcher = Batcher(compute, most=1, workers=3)
        batcher.start()
        tasks = [asyncio.create_task(batcher.submit(number)) for number in range(1, 8)]
        await until(lambda: len(compute.batches) == 3)
        await asyncio.sleep(0.05)
        assert sorted(compute.batches) == [[1], [2], [3]]
        compute.go_on.set()
        assert list(await asyncio.gather(*tasks)) == [2, 4, 6, 8, 10, 12, 14]
        await batcher.stop()

    asyncio.run(check())


def test_failures_in_a_row_are_counted() -> None:
    async def check() -> None:
        batcher = Batcher(Recorder(), most=1)
        batcher.start()
        for wanted in (1, 2):
            with pytest.raises(ArithmeticError):
                await batcher.submit(13)
            assert batcher.failures == wanted
        await batcher.submit(1)
        assert batcher.failures == 0
        await batcher.stop()

    asyncio.run(check())


@pytest.mark.parametrize(("most", "workers"), [(1, 1), (3, 1), (1, 4), (3, 2)])
def test_results_find_their_way_back(most: int, workers: int) -> None:
    async def check() -> None:
        batcher = Batcher(Recorder(), most=most, workers=workers)
        batcher.start()
        assert list(await asyncio.gather(*map(batcher.submit, range(20, 60)))) == [
            2 * number for number in range(20, 60)
        ]
        await batcher.stop()

    asyncio.run(check())
