"""Protected functions of every kind."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from typing import Any, Callable

from ._bind import Binder
from ._guard import Guard
from ._outcome import StreamDigest


def wrap(guard: Guard, function: Any) -> Any:
    """The protected function, of the same kind."""
    if isinstance(function, (staticmethod, classmethod)):
        return type(function)(wrap(guard, function.__func__))
    binder = Binder(function, guard.exclude, guard.resource)
    if inspect.isasyncgenfunction(function):
        return _dry(guard, binder, is_async=True) if guard.dry_run else _async_stream(guard, binder)
    if inspect.isgeneratorfunction(function):
        return _dry(guard, binder, is_async=False) if guard.dry_run else _stream(guard, binder)
    is_async = _is_async(function)
    if guard.dry_run:
        return _dry(guard, binder, is_async=is_async)
    return _async(guard, binder) if is_async else _plain(guard, binder)


def _is_async(function: Any) -> bool:
    if inspect.iscoroutinefunction(function):
        return True
    return not inspect.isroutine(function) and inspect.iscoroutinefunction(type(function).__call__)


def _plain(guard: Guard, binder: Binder) -> Callable[..., Any]:
    function = binder.function

    @functools.wraps(function)
    def protected(*args: Any, **kwargs: Any) -> Any:
        return guard.call(binder.arguments(args, kwargs), lambda: function(*args, **kwargs))

    return protected


def _async(guard: Guard, binder: Binder) -> Callable[..., Any]:
    function = binder.function

    @functools.wraps(function)
    async def protected(*args: Any, **kwargs: Any) -> Any:
        return await guard.acall(binder.arguments(args, kwargs), lambda: function(*args, **kwargs))

    return protected


def _dry(guard: Guard, binder: Binder, *, is_async: bool) -> Callable[..., Any]:
    @functools.wraps(binder.function)
    def asked(*args: Any, **kwargs: Any) -> Any:
        return guard.decide(binder.arguments(args, kwargs), guard.trust())

    @functools.wraps(binder.function)
    async def asked_async(*args: Any, **kwargs: Any) -> Any:
        return await guard.adecide(binder.arguments(args, kwargs), guard.trust())

    return asked_async if is_async else asked


def _stream(guard: Guard, binder: Binder) -> Callable[..., Any]:
    @functools.wraps(binder.function)
    def protected(*args: Any, **kwargs: Any) -> Any:
        # Read where the call stands; the question is asked when the first item is wanted.
        return _items(guard, binder, args, kwargs, binder.arguments(args, kwargs), guard.trust())

    return protected


def _items(
    guard: Guard,
    binder: Binder,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    arguments: Mapping[str, Any],
    trust: str | None,
) -> Generator[Any, Any, Any]:
    decision = guard.decide(arguments, trust)
    digest = StreamDigest()
    inner: Generator[Any, Any, Any] = binder.function(*args, **kwargs)
    try:
        step: Callable[[], Any] = functools.partial(next, inner)
        while True:
            try:
                item = step()
            except StopIteration as end:
                result = end.value
                break
            digest.add(item)
            try:
                step = functools.partial(inner.send, (yield item))
            except GeneratorExit:
                inner.close()
                raise
            except BaseException as thrown:  # noqa: BLE001 - it is the function's to handle
                step = functools.partial(inner.throw, thrown)
    except GeneratorExit:
        # Left early by the caller: the function did not fail, and there is no whole result.
        guard.report(decision, "completed")
        raise
    except BaseException:
        guard.report(decision, "failed")
        raise
    guard.report(decision, "completed", digest.result())
    return result


def _async_stream(guard: Guard, binder: Binder) -> Callable[..., Any]:
    @functools.wraps(binder.function)
    def protected(*args: Any, **kwargs: Any) -> Any:
        return _async_items(guard, binder, args, kwargs, binder.arguments(args, kwargs), guard.trust())

    return protected


async def _async_items(
    guard: Guard,
    binder: Binder,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    arguments: Mapping[str, Any],
    trust: str | None,
) -> AsyncGenerator[Any, Any]:
    decision = await guard.adecide(arguments, trust)
    digest = StreamDigest()
    inner: AsyncGenerator[Any, Any] = binder.function(*args, **kwargs)
    try:
        step: Callable[[], Any] = functools.partial(inner.asend, None)
        while True:
            try:
                item = await step()
            except StopAsyncIteration:
                break
            digest.add(item)
            try:
                step = functools.partial(inner.asend, (yield item))
            except GeneratorExit:
                await inner.aclose()
                raise
            except BaseException as thrown:  # noqa: BLE001 - it is the function's to handle
                step = functools.partial(inner.athrow, thrown)
    except GeneratorExit:
        await guard.areport(decision, "completed")
        raise
    except BaseException:
        await guard.areport(decision, "failed")
        raise
    await guard.areport(decision, "completed", digest.result())
