"""Functions of every shape, and what is said of their source."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any, Callable, TypeVar

import pytest
from fake import Gateway

from aegisagent import SOURCE_TRUST, AegisClient, ConfigurationError, DeniedError, protect_tool, source_trust

F = TypeVar("F")


def asked(gateway: Gateway) -> Any:
    return gateway.body("authorize")["tool_call"]["parameters"]


def refund_of(client: AegisClient, **more: Any) -> Callable[[F], F]:
    wrapper: Callable[[F], F] = protect_tool(client=client, tool="shop", action="refund", **more)
    return wrapper


def test_defaults_keywords_and_nulls(gateway: Gateway, client: AegisClient) -> None:
    @refund_of(client, exclude=["ctx"])
    def refund(amount: int, /, ctx: Any, *rest: int, note: str | None = None, fast: bool = True, **more: Any) -> str:
        """Refunds."""
        return f"{amount}{rest}{more}"

    assert refund(5, object()) == "5(){}"
    assert asked(gateway) == {"amount": 5, "fast": True}
    refund(5, object(), 1, 2, note="n", extra={"a": 1}, nothing=None)
    assert asked(gateway) == {"amount": 5, "rest": [1, 2], "note": "n", "fast": True, "extra": {"a": 1}}
    assert refund.__doc__ == "Refunds."
    assert next(iter(inspect.signature(refund).parameters)) == "amount"
    with pytest.raises(TypeError):
        refund()  # type: ignore[call-arg]


def test_methods_of_every_kind(gateway: Gateway, client: AegisClient) -> None:
    class Shop:
        name = "shop"

        @refund_of(client)
        def method(self, amount: int) -> str:
            return self.name

        @refund_of(client)
        async def coroutine(self, amount: int) -> str:
            return self.name

        @classmethod
        @refund_of(client)
        def of_class(cls, amount: int) -> str:
            return cls.name

        @refund_of(client)
        @classmethod
        def of_class_too(cls, amount: int) -> str:
            return cls.name

        @refund_of(client)
        @staticmethod
        def static(amount: int) -> str:
            return "static"

    shop = Shop()
    assert shop.method(1) == shop.of_class(2) == shop.of_class_too(3) == asyncio.run(shop.coroutine(4)) == "shop"
    assert asked(gateway) == {"amount": 4}
    assert shop.static(5) == "static"
    assert asked(gateway) == {"amount": 5}


def test_callable_objects(gateway: Gateway, client: AegisClient) -> None:
    class Refund:
        async def __call__(self, amount: int) -> int:
            return amount

    assert asyncio.run(refund_of(client)(Refund())(5)) == 5


def test_async_functions_look_like_what_they_are(client: AegisClient) -> None:
    @refund_of(client)
    async def refund(amount: int) -> None: ...

    assert inspect.iscoroutinefunction(refund)


def test_generators_take_what_is_sent_and_thrown(gateway: Gateway, client: AegisClient) -> None:
    @refund_of(client)
    def echo(amount: int) -> Any:
        got: list[str] = []
        try:
            while True:
                got.append((yield len(got)))
        except KeyError:
            yield "caught"
        return got

    stream = echo(5)
    assert gateway.steps == []
    assert (next(stream), stream.send("a"), stream.throw(KeyError())) == (0, 1, "caught")
    with pytest.raises(StopIteration) as end:
        next(stream)
    assert end.value.value == ["a"]
    assert gateway.body("outcome")["status"] == "completed"


def test_a_stream_left_early_has_no_digest(gateway: Gateway, client: AegisClient) -> None:
    closed = []

    @refund_of(client)
    def numbers(amount: int) -> Iterator[int]:
        try:
            yield from range(100)
        finally:
            closed.append("sync")

    @refund_of(client)
    async def anumbers(amount: int) -> AsyncIterator[int]:
        try:
            for number in range(100):
                yield number
        finally:
            closed.append("async")

    async def first() -> int:
        stream: Any = anumbers(5)
        async for number in stream:
            await stream.aclose()
            return int(number)
        return -1

    stream: Any = numbers(5)
    assert next(stream) == 0
    stream.close()
    assert asyncio.run(first()) == 0
    assert closed == ["sync", "async"]
    assert [body for step, body in gateway.asked if step == "outcome"] == [{"status": "completed"}] * 2


def test_a_cancelled_task_is_reported(gateway: Gateway, client: AegisClient) -> None:
    @refund_of(client)
    async def slow(amount: int) -> None:
        running[0].set()
        await asyncio.sleep(60)

    running: list[asyncio.Event] = []

    async def cancelled() -> None:
        running.append(asyncio.Event())
        task = asyncio.create_task(slow(5))
        await asyncio.wait_for(running[0].wait(), 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert gateway.body("outcome") == {"status": "failed"}


@pytest.mark.parametrize(
    "more",
    [
        {"exclude": ["amonut"]},
        {"resource": "{nothing}"},
        {"risk": "extreme"},
        {"source_trust": "high"},
        {"tool": ""},
        {"action": "../x"},
    ],
)
def test_a_wrapper_that_does_not_fit_says_so_at_once(more: dict[str, Any], client: AegisClient) -> None:
    with pytest.raises(ConfigurationError):

        @protect_tool(**{"client": client, "tool": "shop", "action": "refund", **more})
        def refund(amount: int) -> None: ...


def test_the_least_trusted_label_is_sent(gateway: Gateway, client: AegisClient) -> None:
    @refund_of(client, source_trust="semi_trusted_customer")
    def refund(amount: int) -> None: ...

    def said() -> Any:
        refund(5)
        return gateway.body("authorize")["context"]

    assert said() == {"source_trust": "semi_trusted_customer"}
    with source_trust("untrusted_external"):
        assert said() == {"source_trust": "untrusted_external"}
        with source_trust("trusted_internal_signed"):
            assert said() == {"source_trust": "untrusted_external"}
    with source_trust("trusted_internal_signed"):
        assert said() == {"source_trust": "semi_trusted_customer"}
    token = SOURCE_TRUST.set("unknown")
    assert said() == {"source_trust": "unknown"}
    SOURCE_TRUST.reset(token)


def test_a_stream_is_asked_about_with_the_trust_of_its_call(gateway: Gateway, client: AegisClient) -> None:
    @refund_of(client)
    def numbers(amount: int) -> Iterator[int]:
        yield 1

    with source_trust("malicious_suspected"):
        stream = numbers(5)
    assert list(stream) == [1]
    assert gateway.body("authorize")["context"] == {"source_trust": "malicious_suspected"}


def test_threads_and_loops_share_a_client(gateway: Gateway, client: AegisClient) -> None:
    @refund_of(client)
    def refund(amount: int) -> int:
        return amount

    @refund_of(client)
    async def arefund(amount: int) -> int:
        return amount

    results: list[int] = []

    def work(number: int) -> None:
        results.append(refund(number))
        results.append(asyncio.run(arefund(number)))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == sorted([*range(8), *range(8)])
    gateway.script["authorize"] = ["deny"]
    with pytest.raises(DeniedError):
        refund(1)
