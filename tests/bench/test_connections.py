"""A tenth of `cargo xtask bench connections`, on the development build: who does nothing, or too little, holds nobody up."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.connections import Options, measure, verdict

pytestmark = pytest.mark.binary


def test_idle_and_slow_clients_do_not_hold_up_those_who_behave(tmp_path: Path) -> None:
    samples = measure(Options(idle=1000, slow=100, rate=100, seconds=3), tmp_path)
    alone, idle = samples[:2]
    each = (idle.rss_mb - alone.rss_mb) * 1e6 / 1000
    assert each < 48_000, f"{each:.0f} bytes for a connection that waits"
    # The other tests share the machine, and a percentile of 300 requests is its third worst.
    assert verdict(samples, noise_ms=3) == [], samples
