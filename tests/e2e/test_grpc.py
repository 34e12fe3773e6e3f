"""gRPC with a real client and a real server: every kind of call, trailers, denials, containment."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest

from conftest import CANARY
from e2e.test_egress import ALLOW, GENERIC
from e2e.test_upstream import outcome_of
from harness import canary, raw
from harness.gateway import Agent, Credential, Gateway, Route

pytestmark = pytest.mark.binary
BEARER = f"Bearer {CANARY}"


class Service(grpc.GenericRpcHandler):
    """Bytes in, bytes out; keeps what it was shown."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.ended: dict[str, float] = {}

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        self.seen.append((details.method, dict(details.invocation_metadata)))
        name = details.method.rpartition("/")[2]
        return {
            "Echo": grpc.unary_unary_rpc_method_handler(self.echo),
            "Leak": grpc.unary_unary_rpc_method_handler(self.leak),
            "Fail": grpc.unary_unary_rpc_method_handler(self.fail),
            "Count": grpc.unary_stream_rpc_method_handler(self.count),
            "Sum": grpc.stream_unary_rpc_method_handler(self.sum),
            "Chat": grpc.stream_stream_rpc_method_handler(self.chat),
            "Silent": grpc.unary_stream_rpc_method_handler(self.silent),
        }.get(name)

    def echo(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        context.set_trailing_metadata((("x-checksum", str(len(request))),))
        return request

    def leak(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        context.send_initial_metadata((("x-shown", BEARER),))
        context.set_trailing_metadata((("x-leak", BEARER),))
        return b"you sent " + BEARER.encode()

    def fail(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"no, {BEARER}")

    def count(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        for number in range(int(request)):
            yield f"{number} {time.monotonic()}".encode()
            time.sleep(0.1)

    def sum(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        return str(sum(int(request) for request in requests)).encode()

    def chat(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        yield from requests

    def silent(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield b"first"
        while context.is_active():
            time.sleep(0.02)
        self.ended[request.decode()] = time.monotonic()


@pytest.fixture(scope="module")
def service() -> Service:
    return Service()


@pytest.fixture(scope="module")
def port(service: Service) -> Iterator[int]:
    server = grpc.server(futures.ThreadPoolExecutor(32), options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((service,))
    bound = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield bound
    server.stop(0)


@pytest.fixture(scope="module")
def rpc(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[Gateway]:
    url = f"http://127.0.0.1:{port}"
    routes = [
        Route("rpc", url, **GENERIC, hosts=["rpc.test"], listen="127.0.0.1:0", more={"grpc": True}),
        Route("closed", url, **GENERIC, more={"http2": True}),
    ]
    made = Gateway(tmp_path_factory.mktemp("rpc"), routes, [Credential(CANARY)])
    deny = '@id("no-fail")\nforbid (principal, action, resource in Http::Host::"127.0.0.1:%d")' % port
    (made.folder / "policies" / "all.cedar").write_text(
        f'{ALLOW}{deny}\nwhen {{ principal in Team::"nobody" }};\n'
    )
    with made:
        yield made


@pytest.fixture()
def agent(rpc: Gateway) -> Agent:
    return rpc.enrol()


@pytest.fixture()
def channel(rpc: Gateway) -> Iterator[grpc.Channel]:
    """On the route's own port: gRPC clients have no base path."""
    with grpc.insecure_channel(rpc.route_listen["rpc"], options=[("grpc.enable_http_proxy", 0)]) as made:
        yield made


def metadata(agent: Agent, *more: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {agent.token}"), *more)


def unary(channel: grpc.Channel, name: str, agent: Agent, request: bytes = b"hello", **more: Any) -> Any:
    call = channel.unary_unary(f"/test.Service/{name}")
    return call.with_call(request, metadata=metadata(agent), timeout=20, **more)


def test_unary_calls_with_their_trailers(rpc: Gateway, agent: Agent, channel: grpc.Channel, service: Service) -> None:
    for request in (b"", b"hello", b"g", b"x" * 100_000):
        answer, call = unary(channel, "Echo", agent, request)
        assert answer == request
        assert dict(call.trailing_metadata())["x-checksum"] == str(len(request))
    method, shown = service.seen[-1]
    assert method == "/test.Service/Echo" and shown["authorization"] == BEARER
    assert agent.token not in str(shown)
    receipt = dict(call.initial_metadata())["aegis-receipt"]
    intent = rpc.leaf_of(receipt)
    assert (intent["tool"], intent["action"]) == ("http", "post")
    assert intent["resource"].endswith("/test.Service/Echo")
    entry = outcome_of(rpc, receipt)
    assert entry["state"] == "completed" and entry["sent"]["bytes"] == 100_005 == entry["received"]["bytes"]


def test_a_status_is_passed_on_in_its_trailers(channel: grpc.Channel, agent: Agent) -> None:
    with pytest.raises(grpc.RpcError) as failed:
        unary(channel, "Fail", agent)
    assert failed.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert failed.value.details() == f"no, Bearer {'*' * len(CANARY)}"
    with pytest.raises(grpc.RpcError) as failed:
        unary(channel, "NoSuchMethod", agent)
    assert failed.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_echoes_are_masked_in_messages_and_trailers(channel: grpc.Channel, agent: Agent) -> None:
    answer, call = unary(channel, "Leak", agent)
    stars = "*" * len(CANARY)
    assert answer == f"you sent Bearer {stars}".encode()
    assert dict(call.trailing_metadata())["x-leak"] == f"Bearer {stars}"
    assert dict(call.initial_metadata())["x-shown"] == f"Bearer {stars}"


def test_streams_go_on_message_by_message(channel: grpc.Channel, agent: Agent) -> None:
    late = []
    for message in channel.unary_stream("/test.Service/Count")(b"8", metadata=metadata(agent), timeout=20):
        late.append(time.monotonic() - float(message.split()[1]))
    assert len(late) == 8 and sorted(late)[-2] < 0.05, late
    numbers = (str(number).encode() for number in range(100))
    total = channel.stream_unary("/test.Service/Sum")(numbers, metadata=metadata(agent), timeout=20)
    assert total == b"4950"


def test_a_client_that_knows_only_the_forward_proxy(rpc: Gateway, agent: Agent, service: Service) -> None:
    """`CONNECT`, TLS ended by the gateway, gRPC inside: trailers, streams, and the door on record."""
    trusted = grpc.ssl_channel_credentials(rpc.ca.read_bytes())
    with grpc.secure_channel("rpc.test:443", trusted, options=[("grpc.http_proxy", rpc.proxy(agent))]) as channel:
        answer, call = channel.unary_unary("/test.Service/Echo").with_call(b"hello", timeout=20)
        assert answer == b"hello" and dict(call.trailing_metadata())["x-checksum"] == "5"
        assert service.seen[-1][1]["authorization"] == BEARER
        assert rpc.leaf_of(dict(call.initial_metadata())["aegis-receipt"])["door"] == "connect"
        late = []
        for message in channel.unary_stream("/test.Service/Count")(b"8", timeout=20):
            late.append(time.monotonic() - float(message.split()[1]))
        assert len(late) == 8 and sorted(late)[-2] < 0.05, late
        with pytest.raises(grpc.RpcError) as failed:
            channel.unary_unary("/test.Service/Fail")(b"x", timeout=20)
        assert failed.value.code() == grpc.StatusCode.FAILED_PRECONDITION


def test_a_conversation_never_waits_for_a_held_back_byte(channel: grpc.Channel, agent: Agent) -> None:
    """Each message ends in what could be the start of the credential, and the next comes only after its echo."""
    answers: list[bytes] = []
    ends = [CANARY[:n].encode() for n in (1, 2, 4, 8, 16, len(CANARY) - 1)]

    def questions() -> Iterator[bytes]:
        for number, end in enumerate(ends):
            yield b"message " + end
            deadline = time.monotonic() + 5
            while len(answers) <= number and time.monotonic() < deadline:
                time.sleep(0.005)

    for answer in channel.stream_stream("/test.Service/Chat")(questions(), metadata=metadata(agent), timeout=20):
        answers.append(answer)
    assert answers == [b"message " + end for end in ends]


def test_many_calls_at_once(channel: grpc.Channel, agent: Agent) -> None:
    call = channel.unary_unary("/test.Service/Echo")
    pending = [call.future(f"{n}".encode(), metadata=metadata(agent), timeout=30) for n in range(200)]
    assert [each.result() for each in pending] == [f"{n}".encode() for n in range(200)]


def test_denials_are_statuses_with_a_receipt(rpc: Gateway, channel: grpc.Channel, service: Service) -> None:
    before = len(service.seen)
    nobody = rpc.enrol(owner_team="nobody")
    with pytest.raises(grpc.RpcError) as denied:
        unary(channel, "Echo", nobody)
    assert denied.value.code() == grpc.StatusCode.PERMISSION_DENIED
    receipt = dict(denied.value.initial_metadata())["aegis-receipt"]
    assert receipt in denied.value.details() and rpc.leaf_of(receipt).is_denial
    with pytest.raises(grpc.RpcError) as unknown:
        unary(channel, "Echo", Agent("x", "aegis_agt_nobody"))
    assert unknown.value.code() == grpc.StatusCode.UNAUTHENTICATED
    with pytest.raises(grpc.RpcError) as missing:
        channel.unary_unary("/test.Service/Echo")(b"x", timeout=20)
    assert missing.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert len(service.seen) == before


def test_routes_take_no_grpc_unless_they_say_so(rpc: Gateway, agent: Agent, service: Service) -> None:
    before = len(service.seen)
    media = {"Content-Type": "application/grpc"}
    answer = rpc.call(agent, "POST", "/test.Service/Echo", "closed", data=b"\0\0\0\0\0", headers=media)
    assert (answer.status_code, answer.headers["aegis-reason"]) == (415, "grpc_refused")
    # Over HTTP/1.1 the status would be lost with the trailers.
    answer = rpc.call(agent, "POST", "/test.Service/Echo", "rpc", data=b"\0\0\0\0\0", headers=media)
    assert (answer.status_code, answer.headers["aegis-reason"]) == (400, "grpc_needs_http2")
    assert len(service.seen) == before


def test_the_agents_door_speaks_no_http2_in_the_clear(rpc: Gateway) -> None:
    answer = raw.exchange(rpc.listen, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", seconds=5)
    assert answer.status in (0, 400), answer.raw


@pytest.mark.parametrize("verb", ["freeze", "revoke"])
def test_silent_calls_end_within_five_seconds(
    verb: str, rpc: Gateway, agent: Agent, channel: grpc.Channel, service: Service
) -> None:
    other = rpc.enrol()
    call = channel.unary_stream("/test.Service/Silent")(verb.encode(), metadata=metadata(agent), timeout=30)
    bystander = channel.unary_stream("/test.Service/Silent")(b"by", metadata=metadata(other), timeout=30)
    assert next(call) == next(bystander) == b"first"
    started = time.monotonic()
    assert rpc.set_agent(agent, verb).ok
    with pytest.raises(grpc.RpcError):
        next(call)
    assert time.monotonic() - started < 5
    while verb not in service.ended and time.monotonic() - started < 8:
        time.sleep(0.02)
    assert service.ended[verb] - started < 5
    assert bystander.is_active()
    bystander.cancel()


def test_nothing_of_it_shows_the_credential(rpc: Gateway) -> None:
    assert canary.find(rpc.stderr.read_bytes(), [CANARY]) == []
