"""HTTP/2 at the gateway's TLS listener: no case fails that a bare Pingora proxy passes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from attacks.target import HOST, Target, attacked
from harness import doors, environment, framefile, frames
from harness.doors import Door
from harness.framefile import FrameCase
from upstreams.strict_origin import StrictOrigin
from upstreams.tls_front import Authority

CASES = framefile.load(Path(__file__).with_name("h2.txt"))


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with attacked(tmp_path_factory.mktemp("conformance")) as running:
        yield running


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Door, Path]]:
    """Pingora and nothing else in front of an origin that takes the cases' own credential."""
    program = environment.aegis().parent / "examples" / "bare"
    if not program.is_file():
        pytest.skip(f"{program} is not built")
    authority = Authority(tmp_path_factory.mktemp("bare"))
    issued = authority.issue(HOST)
    with StrictOrigin(("authorization", "Bearer token"), hosts={HOST}) as origin:
        words = [program, "127.0.0.1:0", f"127.0.0.1:{origin.port}", "--tls", issued.chain, issued.key]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment.clean()) as process:
            assert process.stdout
            address = process.stdout.readline().strip()
            yield Door(address, b"", HOST, ("h2",)), authority.certificate
            process.kill()


def passes(case: FrameCase, door: Door, authority: Path, values: dict[str, str], seconds: float) -> str | None:
    """`None`, or what came instead."""
    link = doors.enter(door, authority)
    peer = frames.Peer(link)
    try:
        if case.play(peer, values, seconds):
            return None
        return f"{peer.streams} goaway {peer.goaway} closed {peer.closed}"
    finally:
        link.close()


@pytest.mark.binary
def test_bare_pingora_passes_most_cases(bare: tuple[Door, Path]) -> None:
    """Otherwise the comparison would say nothing."""
    values = {"t": "token", "h": HOST, "p": ""}
    failures = [case.name for case in CASES if passes(case, *bare, values, 1)]
    assert len(failures) <= len(CASES) // 10, failures


@pytest.mark.binary
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_conformance(target: Target, bare: tuple[Door, Path], case: FrameCase) -> None:
    mistake = passes(case, target.doors["tls2"], target.gateway.ca, target.values["tls2"], 3)
    if mistake and passes(case, *bare, {"t": "token", "h": HOST, "p": ""}, 3):
        pytest.xfail(f"so does bare Pingora: {mistake}")
    assert not mistake, f"{case.file}:{case.line} RFC {case.rfc}: {case.why}\ngot {mistake}"
