"""A tenth of `cargo xtask bench connections`, on the development build: who does nothing, or too little, holds nobody up."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.connections import Options, measure, verdict

pytestmark = pytest.mark.binary
IDLE = 1000
# What a connection that waits between two requests may hold; a request's own state is twice as large.
EACH = 48_000
# A busy machine moves a percentile of 300 requests now and then; a gateway that is held up is so every time.
TRIES = 3


def test_idle_and_slow_clients_do_not_hold_up_those_who_behave(tmp_path: Path) -> None:
    wrong: list[list[str]] = []
    for number in range(TRIES):
        samples = measure(Options(idle=IDLE, slow=100, rate=100, seconds=3), tmp_path / str(number))
        alone, idle = samples[:2]
        each = (idle.rss_mb - alone.rss_mb) * 1e6 / IDLE
        assert each < EACH, f"{each:.0f} bytes for a connection that waits"
        wrong.append(verdict(samples, noise_ms=3))
        if not wrong[-1]:
            return
    raise AssertionError(wrong)
