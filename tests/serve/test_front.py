"""The front of a cluster: same answers as one server, and none lost with a replica.

The replicas run in this process, in the place of those of Ray Serve.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import pickle
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient
from tests.runtime.bundles import digits_run, held_out

from tesela.cli.main import run
from tesela.core.errors import UsageError
from tesela.runtime.predictor import Predictor
from tesela.serve.app import create_app
from tesela.serve.cluster.exchange import WholeAnswer, WholeRequest, exchange
from tesela.serve.cluster.front import TRIES, Forwarder, ReplicaLostError, create_front
from tesela.serve.cluster.replicas import ModelPlace, ModelReplica, replica_reach
from tesela.serve.config import ServeConfig
from tesela.serve.errors import RefusedError

IMAGES = held_out(8)[0]
KEY = "a-key-of-the-tests"
PNG = {"content-type": "image/png"}


class Local:
    """A replica in this process; the next ``deaths`` requests end with it."""

    def __init__(self, config: ServeConfig) -> None:
        place = ModelPlace(str(digits_run()), "torch", "fp32")
        self.replica = ModelReplica({"digits": place}, config)
        self.deaths = 0
        self.sent: list[WholeRequest] = []
        self.answers: list[WholeAnswer] = []

    async def __call__(self, request: WholeRequest) -> WholeAnswer:
        self.sent.append(pickle.loads(pickle.dumps(request)))  # as it travels
        answer = await self.replica(self.sent[-1])
        if self.deaths:
            self.deaths -= 1
            raise ReplicaLostError("killed")
        self.answers.append(pickle.loads(pickle.dumps(answer)))
        return self.answers[-1]


@pytest.fixture(scope="module")
def plain() -> Iterator[TestClient]:
    predictors = {"digits": Predictor(digits_run(), backend="torch", precision="fp32", threads=1)}
    # images that came together would be computed in batches of any size, whose last bits differ
    with TestClient(create_app(predictors, config=ServeConfig(decoders=1, max_batch=1))) as client:
        yield client


@pytest.fixture(scope="module")
def fronted(plain: TestClient) -> Iterator[tuple[TestClient, Local]]:
    config = ServeConfig(decoders=1, max_batch=1, api_keys=(KEY,))
    replicas = Local(config)
    front = create_front(replicas, plain.get("/openapi.json").json(), config=config, most=2)
    with TestClient(front, headers={"x-api-key": KEY}) as client:
        yield client, replicas
        assert client.portal is not None
        client.portal.call(replicas.replica.stop)


@pytest.mark.parametrize(
    ("method", "path", "given"),
    [
        ("POST", "/v1/classify?top=3", {"content": IMAGES[0], "headers": PNG}),
        ("POST", "/v1/classify", {"files": [("image", (f"{n}.png", IMAGES[n])) for n in range(3)]}),
        ("POST", "/v1/explain?method=rollout&target=three", {"content": IMAGES[1], "headers": PNG}),
        ("POST", "/v1/attention?layer=1&row=0&column=1", {"content": IMAGES[2], "headers": PNG}),
        ("POST", "/v1/heads", {"content": IMAGES[2], "headers": PNG}),
        ("GET", "/v1/models", {}),
        ("GET", "/v1/models/digits", {}),
        ("GET", "/v1/models/other", {}),
        ("GET", "/v1/models/digits/examples/900", {}),
        ("POST", "/v1/classify?model=other", {"content": IMAGES[0], "headers": PNG}),
        ("POST", "/v1/classify?top=0", {"content": IMAGES[0], "headers": PNG}),
        ("POST", "/v1/classify", {"content": IMAGES[0][:60], "headers": PNG}),
        ("POST", "/v1/classify", {"content": b"text", "headers": {"content-type": "text/plain"}}),
        ("POST", "/v1/classify", {"content": b"x", "headers": {**PNG, "content-encoding": "gzip"}}),
        ("POST", "/v1/classify", {"content": bytes(20 * 1024 * 1024 + 1), "headers": PNG}),
        ("POST", "/v1/segment", {"content": IMAGES[0], "headers": PNG}),
        ("GET", "/v1/classify", {}),
        ("GET", "/openapi.json", {}),
        ("GET", "/healthz", {}),
        ("GET", "/readyz", {}),
        ("GET", "/", {}),
    ],
)
def test_answers_are_those_of_one_server(
    plain: TestClient, fronted: tuple[TestClient, Local], method: str, path: str, given: dict[str, Any]
) -> None:
    if "files" in given:
        given = {"files": given["files"], "headers": {}}
    wanted, found = plain.request(method, path, **given), fronted[0].request(method, path, **given)
    assert (found.status_code, found.content) == (wanted.status_code, wanted.content)
    assert sorted(found.headers.multi_items()) == sorted(wanted.headers.multi_items())


def test_keys_stay_at_the_front(fronted: tuple[TestClient, Local]) -> None:
    client, replicas = fronted
    before = len(replicas.sent)
    refused = client.post("/v1/classify", content=IMAGES[0], headers={**PNG, "x-api-key": "another"})
    assert refused.status_code == 401 and len(replicas.sent) == before
    assert client.post("/v1/classify", content=IMAGES[0], headers=PNG).status_code == 200
    assert {name for name, _ in replicas.sent[-1].headers} == {b"content-type"}


def test_an_accepted_request_outlives_its_replica(
    plain: TestClient, fronted: tuple[TestClient, Local]
) -> None:
    client, replicas = fronted
    before, replicas.deaths = len(replicas.sent), 2
    found = client.post("/v1/classify?top=10", content=IMAGES[4], headers=PNG)
    assert found.json() == plain.post("/v1/classify?top=10", content=IMAGES[4], headers=PNG).json()
    assert replicas.sent[before:] == [replicas.sent[before]] * 3
    assert 'tesela_requests_total{method="POST",route="/v1/classify",status="200"}' in (
        client.get("/metrics").text
    )


def test_a_request_that_ends_every_replica_is_given_up(fronted: tuple[TestClient, Local]) -> None:
    client, replicas = fronted
    before, replicas.deaths = len(replicas.sent), TRIES
    found = client.post("/v1/classify", content=IMAGES[0], headers=PNG)
    assert (found.status_code, found.json()["code"]) == (500, "internal_error")
    assert len(replicas.sent) - before == TRIES


def in_loop(config: ServeConfig, most: int, work: Callable[[Any, Local], Awaitable[Any]]) -> Any:
    """What ``work`` gives over a front and its replica."""

    async def main() -> Any:
        replicas = Local(config)
        document = json.loads((await replicas(WholeRequest("GET", "/openapi.json"))).body)
        front = create_front(replicas, document, config=config, most=most)
        try:
            return await work(front, replicas)
        finally:
            await replicas.replica.stop()

    return asyncio.run(main())


def asked(number: int) -> WholeRequest:
    return WholeRequest(
        "POST", "/v1/classify", headers=((b"content-type", b"image/png"),), body=IMAGES[number]
    )


def test_what_was_let_in_waits_until_a_replica_has_room() -> None:
    """The replica takes one at a time, the front four: all are answered, though the replica refused some."""

    async def work(front: Any, replicas: Local) -> list[WholeAnswer]:
        found = await asyncio.gather(*(exchange(front, asked(number)) for number in range(4)))
        assert "overloaded" in {answer.code for answer in replicas.answers}
        return found

    found = in_loop(ServeConfig(decoders=1, queue=1), 4, work)
    assert [answer.status for answer in found] == [200] * 4
    wanted = Predictor(digits_run(), backend="torch", precision="fp32").predict(IMAGES[:4])
    assert [json.loads(answer.body)["top"][0]["label"] for answer in found] == [
        one.scores[0].label for one in wanted
    ]


def test_what_is_too_much_is_refused_by_the_front() -> None:
    """No replica hears of it, by the first line as by the application."""

    async def work(front: Any, replicas: Local) -> None:
        before = len(replicas.sent)
        first = asyncio.create_task(exchange(front, asked(0)))
        while len(replicas.sent) == before:
            await asyncio.sleep(0)
        admission = front.state.admission
        assert isinstance(admission(b"/v1/classify?top=2"), bytes)
        assert not isinstance(admission(b"/v1/explain"), bytes)
        refused = await exchange(front, asked(1))
        assert (refused.status, refused.code) == (503, "overloaded")
        assert (await first).status == 200
        assert len(replicas.sent) == before + 1
        assert not isinstance(admission(b"/v1/classify"), bytes)

    in_loop(ServeConfig(decoders=1, queue=1), 1, work)


def test_time_begins_anew_after_a_loss_and_ends() -> None:
    """Each of two replicas uses most of the time; a third that never answers is not waited for longer."""
    left = 0

    async def replicas(_: WholeRequest) -> WholeAnswer:
        nonlocal left
        try:
            await asyncio.sleep(0.3 if left < 2 else 60)
        finally:
            left += 1
        raise ReplicaLostError("killed")

    with pytest.raises(RefusedError, match="deadline"):
        asyncio.run(Forwarder(replicas, seconds=0.4, recovery=0.2)(asked(0)))
    assert left == 3


def test_nothing_is_given_up_while_replicas_start() -> None:
    """One request ends a replica, and another one that was let in waits for more than its deadline."""
    up = asyncio.Event()
    sent = 0

    async def replicas(request: WholeRequest) -> WholeAnswer:
        nonlocal sent
        sent += 1
        if sent == 1:
            raise ReplicaLostError("killed")
        await up.wait()
        return WholeAnswer(200, body=request.body)

    async def main() -> list[WholeAnswer]:
        forwarder = Forwarder(replicas, seconds=0.1, recovery=30)
        asyncio.get_running_loop().call_later(0.5, up.set)
        return await asyncio.gather(*(forwarder(asked(number)) for number in range(2)))

    assert [answer.body for answer in asyncio.run(main())] == IMAGES[:2]
    assert sent > 4


def test_a_client_that_leaves_ends_the_work() -> None:
    async def main() -> bool:
        begun, ended = asyncio.Event(), asyncio.Event()

        async def replicas(_: WholeRequest) -> WholeAnswer:
            begun.set()
            try:
                await asyncio.sleep(60)
            finally:
                ended.set()
            return WholeAnswer(200)

        document: dict[str, Any] = {"paths": {"/v1/classify": {"post": {}}}}
        front = create_front(replicas, document, config=ServeConfig(), most=1)
        waiting = asyncio.create_task(exchange(front, asked(0)))
        await begun.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        return ended.is_set()

    assert asyncio.run(main())


def test_codes_are_read_from_refusals_alone() -> None:
    assert WholeAnswer(503, body=b'{"code": "overloaded"}').code == "overloaded"
    assert WholeAnswer(200, body=b'{"code": "overloaded"}').code == ""
    assert WholeAnswer(500, body=b"no json").code == "" and WholeAnswer(500, body=b"[]").code == ""


def test_numbers_of_replicas() -> None:
    assert replica_reach("") == (1, None)
    assert replica_reach("2") == (2, 2) and replica_reach("1..4") == (1, 4)
    for text in ("0", "0..2", "4..1", "1.5", "1..", "many", "-1", "1...3"):
        with pytest.raises(UsageError, match="is no number of replicas"):
            replica_reach(text)


def test_options_of_a_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["serve", str(digits_run()), "--port", "0"]
    assert run([*words, "--replicas", "2"]) == 2
    assert "add --engine ray" in capsys.readouterr().err
    assert run([*words, "--replicas", "3..1", "--engine", "ray"]) == 2
    assert "write --replicas 2" in capsys.readouterr().err
    if importlib.util.find_spec("ray") is None:
        assert run([*words, "--engine", "ray"]) == 2
        assert 'pip install "tesela[ray]"' in capsys.readouterr().err
