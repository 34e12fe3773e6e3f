from __future__ import annotations

from collections.abc import Iterator

import pytest
from fake import TOKEN, Gateway

from aegisagent import AegisClient


@pytest.fixture()
def gateway() -> Iterator[Gateway]:
    with Gateway() as running:
        yield running


@pytest.fixture()
def client(gateway: Gateway) -> Iterator[AegisClient]:
    with AegisClient(gateway.url, TOKEN, timeout=5, approval_timeout=10) as made:
        yield made
