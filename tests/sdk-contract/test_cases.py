"""The contract of docs/sdk.md: every case of cases/*.yaml in every SDK, against the scripted gateway."""

from __future__ import annotations

import pytest

import casefile
import sdks
from played import stage
from verdicts import CODES, faults

CASES = {case.id: case for case in casefile.load()}


def modes_of(sdk: str, case: casefile.Case) -> list[str]:
    if case.modes == "streams":
        return [mode for mode in sdks.MODES[sdk] if "stream" in mode]
    if case.modes == "all":
        return sdks.MODES[sdk]
    return [sdks.FUNCTIONS[sdk][0]] if case.modes == "plain" else sdks.FUNCTIONS[sdk]


def combinations() -> list[tuple[str, str, str]]:
    return [(sdk, mode, case.id) for sdk in sdks.names() for case in CASES.values() for mode in modes_of(sdk, case)]


@pytest.fixture(scope="module")
def begun(request: pytest.FixtureRequest) -> None:
    """What was selected starts together; the tests then wait for their own."""
    sdks.check()
    wanted = []
    for item in request.session.items:
        chosen = getattr(item, "callspec", None)
        if chosen and getattr(item, "originalname", "") == "test_case" and chosen.params["name"] in CASES:
            case, sdk = CASES[chosen.params["name"]], chosen.params["sdk"]
            if sdk not in case.skip:
                wanted.append((case, sdk, chosen.params["mode"]))
    stage().begin(wanted)


@pytest.mark.parametrize("sdk, mode, name", combinations())
def test_case(sdk: str, mode: str, name: str, begun: None) -> None:
    case = CASES[name]
    if sdk in case.skip:
        pytest.skip(case.skip[sdk])
    found = faults(stage().result(case, sdk, mode))
    assert not found, "\n".join(found)


@pytest.mark.parametrize("sdk", sdks.names())
def test_no_driver_wrote_the_token(sdk: str) -> None:
    """Behind all cases: what an SDK logs is on stderr."""
    for driver in stage().pool.drivers():
        if driver.name == sdk:
            assert casefile.TOKEN[14:30] not in driver.said()


def test_every_code_has_a_case() -> None:
    told = {code for case in CASES.values() for code in case.codes}
    assert CODES <= told, CODES - told
