"""What is attacked: a gateway with every ingress open, and the origin behind it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conftest import CANARY, all_routes
from harness import doors, receipts
from harness.doors import Door, Link
from harness.gateway import Credential, Gateway, Route
from upstreams.strict_origin import StrictOrigin

HOST = "api.github.test"
OTHER = "challenge.github.test"


class Target:
    """Gateway, origin, and the values that the cases' placeholders stand for."""

    def __init__(self, gateway: Gateway, origin: StrictOrigin) -> None:
        self.gateway, self.origin = gateway, origin
        port = gateway.route_listen["github-port"]
        common = {"g": gateway.listen, "admin": gateway.admin, "p": "", "h": HOST, **self.tokens()}
        self.values = {name: dict(common) for name in doors.INGRESSES}
        self.values["path"] |= {"p": "/github", "h": gateway.listen}
        self.values["api"] |= {"h": gateway.listen}
        self.values["port"] |= {"h": port}
        self.values["forward"] |= {"p": f"http://{HOST}"}
        opening = f"CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n\r\n".encode()
        self.doors = {name: Door(gateway.listen) for name in ("path", "host", "api", "forward")} | {
            "port": Door(port),
            "connect": Door(gateway.listen, opening, HOST, ("http/1.1",)),
            "connect2": Door(gateway.listen, opening, HOST, ("h2",)),
            "tls": Door(gateway.tls, b"", HOST, ("http/1.1",)),
            "tls2": Door(gateway.tls, b"", HOST, ("h2",)),
        }
        self.tail = receipts.Tail(gateway.receipts)
        self.tail.new()

    def tokens(self) -> dict[str, str]:
        gateway = self.gateway
        agent, other, frozen, revoked = (gateway.enrol() for _ in range(4))
        assert gateway.set_agent(frozen, "freeze").ok and gateway.set_agent(revoked, "revoke").ok
        swapped = "A" if agent.token[20] != "A" else "B"
        return {
            "t": agent.token,
            "t:other": other.token,
            "t:frozen": frozen.token,
            "t:revoked": revoked.token,
            "t:forged": agent.token[:20] + swapped + agent.token[21:],
            "t:short": agent.token[:-1],
            "t:capitals": agent.token.upper(),
            "t:admin": gateway.admin_token,
            "t:approver": gateway.approver().token,
        }

    def enter(self, ingress: str, connect: bytes = b"", server_name: str | None = None, plain: bool = False) -> Link:
        """A connection through the ingress's door, or one that differs from it in what is given."""
        door = self.doors[ingress]
        name = door.server_name if server_name is None else server_name
        door = Door(door.address, connect or door.connect, None if plain else name, door.alpn)
        return doors.enter(door, self.gateway.ca)

    def settle(self) -> None:
        """Until no more leaves come: what a case leaves late is not the next one's."""
        while self.tail.until(bool, 0.1):
            pass

    def denials(self, expected: int, seconds: float = 2) -> list[receipts.Leaf]:
        """The refusals on record since the last look, once `expected` are there."""

        def count(leaves: list[receipts.Leaf]) -> int:
            return sum(leaf.is_denial for leaf in leaves)

        leaves = self.tail.until(lambda new: count(new) >= expected, seconds) if expected else self.tail.new()
        return [leaf for leaf in leaves if leaf.is_denial]


def routes(origin: StrictOrigin) -> list[Route]:
    """Every route of the other tests; the tunnel to `HOST` leaves the question who it is to the inside."""
    known = all_routes(origin)
    for route in known:
        route.more["body_timeout_seconds"] = 5
        if HOST in route.hosts:
            route.more["proxy_auth"] = "inner"
    return [*known, Route("challenge", origin.url, hosts=[OTHER])]


@contextmanager
def attacked(folder: Path) -> Iterator[Target]:
    """At the end the record must verify."""
    with StrictOrigin(("authorization", f"Bearer {CANARY}")) as origin:
        tls = '[tls]\nlisten = "127.0.0.1:0"\n'
        with Gateway(folder, routes(origin), [Credential(CANARY)], extra=tls) as gateway:
            yield Target(gateway, origin)
            done = receipts.verify(gateway.receipts)
            assert done.returncode == 0, done.stdout + done.stderr
