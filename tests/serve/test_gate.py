"""Admission by what is inside: counts, expected waits, and refusals by the first line of a request."""

from __future__ import annotations

import json

import pytest
from tests.runtime.bundles import digits_run

from tesela.runtime.predictor import Predictor
from tesela.serve.app import create_app
from tesela.serve.config import ServeConfig
from tesela.serve.engine.admission import OverloadAdmission
from tesela.serve.engine.gate import COMES_WITHIN, Gate
from tesela.serve.errors import RefusedError, problem
from tesela.serve.metrics import ServerMetrics
from tesela.serve.security import HEADERS


class Clock:
    """A clock that the tests put forward, in the place of the gate's."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("tesela.serve.engine.gate.time", made)
    return made


def full(count: int = 1) -> Gate:
    gate = Gate(count)
    gate.inside = count
    return gate


def test_gate_counts() -> None:
    gate = Gate(2)
    with gate.enter(), gate.enter():
        for attempt in (gate.check, lambda: gate.enter().__enter__()):
            with pytest.raises(RefusedError, match="overloaded"):
                attempt()
    gate.check()
    assert gate.inside == 0


def test_gate_refuses_what_would_wait_for_more_than_half_of_its_time(clock: Clock) -> None:
    """An answer takes 0.05 s; of a time of 0.4 s half may be spent waiting: the fourth or fifth is let in,
    the sixth is not, and is told when to come again."""
    gate = Gate(100, seconds=0.4)
    with gate.enter():
        clock.sleep(0.05)
    inside = 0
    while gate.excess is None:
        gate.inside += 1
        inside += 1
    assert inside in (4, 5)  # of 0.05 s each, in floating point
    gate.inside = 100
    with pytest.raises(RefusedError) as refused:
        gate.check()
    assert 4 <= int(refused.value.headers["Retry-After"]) <= 8
    gate.inside = 0
    gate.check()


def test_gate_reckons_with_what_works_at_once(clock: Clock) -> None:
    """Four that are inside together and take 0.1 s each are answered at one in 0.025 s."""
    gate = Gate(100, seconds=0.4)
    with gate.enter(), gate.enter(), gate.enter(), gate.enter():
        clock.sleep(0.1)
    gate.inside = 7
    assert gate.excess is None
    gate.inside = 12
    assert gate.excess is not None


def test_gate_does_not_learn_from_failures(clock: Clock) -> None:
    gate = Gate(100, seconds=0.4)
    with gate.enter():
        clock.sleep(0.05)
    for _ in range(100):
        with pytest.raises(RefusedError), gate.enter():
            raise RefusedError("corrupt")
    gate.inside = 6
    assert gate.excess is not None


def test_those_on_their_way_have_their_places(clock: Clock) -> None:
    """Of ten before the first is inside two are let in; one that never comes gives its place up."""
    gate = Gate(2)
    let_in = []
    for _ in range(10):
        if gate.excess is None:
            let_in.append(gate.expect())
    assert len(let_in) == 2
    with gate.enter(), gate.enter():
        assert gate.excess is not None
        for leave in let_in:
            leave()
        assert gate.excess is not None
    assert gate.excess is None
    leave = gate.expect()
    gate.expect()
    assert gate.excess is not None
    leave()
    assert gate.excess is None
    gate.expect()
    assert gate.excess is not None
    clock.sleep(COMES_WITHIN + 0.01)
    assert gate.excess is None


def test_admission_refuses_where_no_model_has_room() -> None:
    """The first model answers where none is named; a named one only counts as full if all are."""
    first, second = full(), Gate(1)
    metrics = ServerMetrics()
    admission = OverloadAdmission(
        {"/v1/classify": [first, second], "/v1/segment": []}, metrics=metrics, prefix="/site"
    )
    for target in (b"/v1/classify", b"/v1/classify?top=3", b"/site/v1/classify"):
        answer = admission(target)
        assert isinstance(answer, bytes)
        head, _, body = answer.partition(b"\r\n\r\n")
        lines = dict(line.split(b": ", 1) for line in head.split(b"\r\n"))
        assert json.loads(body) == problem("overloaded")
        assert lines[b"content-length"] == str(len(body)).encode()
        assert lines[b"content-type"] == b"application/problem+json"
        assert lines[b"retry-after"] == b"1"
        for name, value in HEADERS.items():
            assert lines[name.lower().encode()] == value.encode()
    for target in (b"/v1/classify?model=b", b"/v1/segment", b"/v1/explain", b"/healthz", b"/v1/classify/"):
        assert not isinstance(admission(target), bytes)
    assert admission(b"/healthz") is None
    second.inside = 1
    assert isinstance(admission(b"/v1/classify?model=b"), bytes)
    first.inside = 0
    assert not isinstance(admission(b"/v1/classify"), bytes)
    counted = metrics.registry.get_sample_value
    row = {"route": "/v1/classify", "method": "POST", "status": "503"}
    assert counted("tesela_requests_total", row) == 4
    assert counted("tesela_request_seconds_count", {"route": "/v1/classify"}) == 4


def test_admission_of_an_application_knows_its_gates() -> None:
    """Where the queue of the only classifier is full every question to it is refused, others are not."""
    app = create_app({"digits": Predictor(digits_run())}, config=ServeConfig(queue=1, explain_queue=1))
    admission = app.state.admission
    assert not isinstance(admission(b"/v1/classify"), bytes)
    gates = {target: route[0][0] for target, route in admission._routes.items()}
    assert set(gates) == {b"/v1/classify", b"/v1/explain", b"/v1/attention", b"/v1/heads"}
    gates[b"/v1/classify"].inside = 1
    assert isinstance(admission(b"/v1/classify?top=2&model=digits"), bytes)
    assert not isinstance(admission(b"/v1/explain"), bytes)
    gates[b"/v1/heads"].inside = 1
    assert isinstance(admission(b"/v1/attention"), bytes)
