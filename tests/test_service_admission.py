from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, suppress

import pytest

pytest.importorskip("fastapi", reason="needs the extra serve")

from clothing_classifier.service.admission import Admission
from clothing_classifier.service.problems import Problem
from clothing_classifier.service.settings import Settings


def refusal(entrance: AbstractContextManager[None]) -> Problem:
    with pytest.raises(Problem) as caught, entrance:
        pass
    return caught.value


def counts(admission: Admission) -> tuple[int, ...]:
    return admission.readers, admission.requests, admission.photos, admission.bytes


def test_so_many_bodies_are_read_at_once_and_no_more() -> None:
    admission = Admission(Settings(readers=2))
    with admission.reader(), admission.reader():
        assert (admission.under_way, counts(admission)) == (2, (2, 0, 0, 0))
        assert refusal(admission.reader()).kind == "overloaded"
        with admission.request():
            assert (admission.under_way, counts(admission)) == (3, (2, 1, 0, 0))
    with admission.reader():
        assert admission.under_way == 1
    assert counts(admission) == (0, 0, 0, 0)


def test_so_many_requests_are_computed_and_no_body_is_read_in_vain() -> None:
    admission = Admission(Settings(requests=2))
    with admission.request(), admission.request():
        assert refusal(admission.request()).kind == "overloaded"
        assert refusal(admission.reader()).kind == "overloaded"
    with admission.request(), admission.reader():
        assert counts(admission) == (1, 1, 0, 0)


def test_photos_under_way_turn_further_requests_away() -> None:
    admission = Admission(Settings(photos=5))
    with admission.work(2), admission.work(2), admission.request(), admission.work(1):
        assert admission.photos == 5
        assert refusal(admission.request()).kind == refusal(admission.reader()).kind == "overloaded"
    with admission.work(4), admission.request(), admission.reader():
        assert counts(admission) == (1, 1, 4, 0)
    assert counts(admission) == (0, 0, 0, 0)


def test_what_is_counted_is_given_back_where_it_fails() -> None:
    admission = Admission(Settings())
    for entrance in (admission.reader(), admission.request(), admission.work(3), admission.body()):
        with suppress(ZeroDivisionError), entrance as hold:
            if hold is not None:
                hold.grow(7)
            assert sum(counts(admission)) > 0
            raise ZeroDivisionError
        assert counts(admission) == (0, 0, 0, 0)


def test_bytes_are_held_as_they_come_up_to_all_that_there_is_room_for() -> None:
    admission = Admission(Settings(held_bytes=100))
    with admission.body() as first:
        first.grow(60)
        first.grow(70)
        first.grow(50)
        assert (first.size, admission.bytes) == (70, 70), "a body does not shrink"
        with admission.body() as second:
            second.grow(30)
            admission.require_room(0)
            with pytest.raises(Problem, match="overloaded"):
                second.grow(31)
            with pytest.raises(Problem, match="overloaded"):
                admission.require_room(1)
            assert (second.size, admission.bytes) == (30, 100)
        assert admission.bytes == 70
    assert admission.bytes == 0


def test_who_stops_takes_nothing_new_and_ends_what_is_there() -> None:
    admission = Admission(Settings())
    with admission.reader():
        admission.stopping = True
        problem = refusal(admission.reader())
        assert (problem.kind, problem.headers["Retry-After"]) == ("stopping", "5")
        with admission.request():
            assert admission.under_way == 2


def test_the_advice_is_how_long_what_is_under_way_takes() -> None:
    admission = Admission(Settings(photos=1))
    assert admission.advice == 1, "and never now"
    for _ in range(200):
        admission.computed(4, 2.0)
    with admission.work(9):
        assert admission.advice == 5, "nine photos of half a second"
        problem = refusal(admission.request())
        assert problem.headers["Retry-After"] == "5"
        assert "ask again in 5 s" in str(problem)
    with ExitStack() as stack:
        for _ in range(7):
            stack.enter_context(admission.request())
        assert admission.advice == 4, "a request whose photos are not counted yet has one at least"
    with admission.work(10_000):
        assert admission.advice == 30, "longer nobody waits"
