"""The approval pages in a real browser: sign in, read, approve, reject, ended, already used."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, Page, expect, sync_playwright

from conftest import CANARY
from harness.browser import launch
from harness.gateway import Agent, Approver, Credential, Gateway, Route
from upstreams.strict_origin import StrictOrigin

pytestmark = pytest.mark.binary

PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = launch(playwright)
        yield started
        started.close()


@pytest.fixture(params=["desktop", "phone"])
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """Without scripts: the pages must not need any."""
    size = PHONE if request.param == "phone" else {"width": 1280, "height": 900}
    context = browser.new_context(viewport=size, java_script_enabled=False)
    yield context.new_page()
    context.close()


@pytest.fixture(autouse=True)
def answers(origin: StrictOrigin) -> None:
    pull = {"head": {"sha": "a" * 40, "ref": "topic"}, "base": {"ref": "main"}, "draft": False, "user": {"login": "m"}}
    origin.answer("GET", r"/repos/octo/hello/pulls/\d+", pull)
    origin.answer("GET", "/repos/octo/hello/branches/main", {"name": "main", "protected": True})


def ask(gateway: Gateway, agent: Agent, number: int, **parameters: Any) -> str:
    answer = gateway.call(agent, "PUT", f"/repos/octo/hello/pulls/{number}/merge", json=parameters or None)
    assert answer.status_code == 403, answer.text
    return str(answer.headers["aegis-approval"])


def sign_in(page: Page, gateway: Gateway, approver: Approver, path: str = "/approvals") -> None:
    page.goto(f"http://{gateway.admin}{path}")
    page.get_by_label("Approver token").fill(approver.token)
    page.get_by_role("button", name="Sign in").click()


def test_sign_in_read_approve_and_the_call_goes_through(
    page: Page, gateway: Gateway, agent: Agent, approver: Approver, tmp_path: Path
) -> None:
    approval = ask(gateway, agent, 1, commit_title="<b>Release</b> & more", merge_method="squash")
    sign_in(page, gateway, approver)
    expect(page.get_by_role("heading", name="Waiting for you")).to_be_visible()
    page.locator("li.card", has_text="octo/hello#1").get_by_role("link").click()
    expect(page).to_have_url(re.compile(f"/approvals/{approval}$"))
    expect(page.get_by_role("heading", level=1)).to_have_text("Merge pull request (github)")
    for words in ("octo/hello#1", "Test agent", "team@example.test", "high risk", "semi trusted customer", "a" * 40):
        expect(page.locator("main")).to_contain_text(words)
    expect(page.get_by_role("row", name=re.compile("^commit_title"))).to_contain_text("<b>Release</b> & more")
    page.screenshot(path=tmp_path / "approval.png", full_page=True)
    width = page.locator("html").bounding_box()
    assert width and width["width"] <= page.viewport_size["width"]  # type: ignore[index]
    page.get_by_role("button", name="Approve").click()
    expect(page.get_by_role("status")).to_contain_text("Approved by Lead")
    expect(page.get_by_role("button", name="Approve")).to_have_count(0)
    body = {"commit_title": "<b>Release</b> & more", "merge_method": "squash"}
    path = "/repos/octo/hello/pulls/1/merge"
    assert gateway.call(agent, "PUT", path, json=body).status_code == 200
    page.reload()
    expect(page.get_by_role("status")).to_contain_text("already used")


def test_reject(page: Page, gateway: Gateway, agent: Agent, approver: Approver) -> None:
    approval = ask(gateway, agent, 2)
    sign_in(page, gateway, approver, f"/approvals/{approval}")
    expect(page).to_have_url(re.compile(f"/approvals/{approval}$"))
    page.get_by_role("button", name="Reject").click()
    expect(page.get_by_role("status")).to_contain_text("Rejected by Lead")
    assert gateway.call(agent, "PUT", "/repos/octo/hello/pulls/2/merge").status_code == 403


def test_answered_elsewhere_meanwhile(page: Page, gateway: Gateway, agent: Agent, approver: Approver) -> None:
    approval = ask(gateway, agent, 3)
    sign_in(page, gateway, approver, f"/approvals/{approval}")
    expect(page.get_by_role("button", name="Approve")).to_be_visible()
    assert gateway.settle(approver, approval, "reject").ok
    page.get_by_role("button", name="Approve").click()
    expect(page.get_by_role("alert")).to_contain_text("rejected")
    expect(page.get_by_role("status")).to_contain_text("Rejected by Lead")


def test_what_ended_says_so(
    page: Page, tmp_path: Path, one_origin: StrictOrigin
) -> None:
    routes = [Route("github", one_origin.url, more={"approval_ttl_seconds": 10})]
    with Gateway(tmp_path / "hasty", routes, [Credential(CANARY)]) as hasty:
        lead = hasty.approver()
        approval = ask(hasty, hasty.enrol(), 4)
        sign_in(page, hasty, lead, f"/approvals/{approval}")
        expect(page.get_by_role("button", name="Approve")).to_be_visible()
        time.sleep(10.5)
        page.get_by_role("button", name="Approve").click()
        expect(page.get_by_role("alert")).to_contain_text("expired")
        expect(page.get_by_role("status")).to_contain_text("ended before it was used")
        end = time.monotonic() + 10
        while "approval_expired" not in (kinds := [leaf.body.get("kind") for leaf in hasty.leaves()]):
            assert time.monotonic() < end, f"its end is not on record: {kinds}"
            time.sleep(0.1)
        assert "approval_granted" not in kinds


def test_a_wrong_token_and_a_stranger(page: Page, gateway: Gateway, agent: Agent) -> None:
    approval = ask(gateway, agent, 5)
    for token in ("nonsense", agent.token, gateway.admin_token):
        sign_in(page, gateway, Approver("", token))
        expect(page.get_by_role("alert")).to_contain_text("not the token of an approver")
    stranger = gateway.approver("Stranger", ("marketing",))
    sign_in(page, gateway, stranger, f"/approvals/{approval}")
    expect(page.get_by_role("heading", level=1)).to_have_text("This is not for you to decide")
    assert "octo/hello" not in page.content()
    page.goto(f"http://{gateway.admin}/approvals")
    expect(page.locator("main")).to_contain_text("Nothing waits for marketing")


def test_signing_out_and_losing_access_end_the_session(page: Page, gateway: Gateway, agent: Agent) -> None:
    approval = ask(gateway, agent, 6)
    person = gateway.approver("Gone", ("platform-leads",))
    sign_in(page, gateway, person)
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Approver token")).to_be_visible()
    sign_in(page, gateway, person, f"/approvals/{approval}")
    assert gateway.api("POST", f"/v1/approvers/{person.person_id}/revoke").status_code == 204
    page.get_by_role("button", name="Approve").click()
    expect(page.get_by_role("alert")).to_contain_text("session is over")
    status = gateway.api("GET", f"/v1/approvals/{approval}").json()["status"]
    assert status == "pending"


def test_everything_is_reached_by_keyboard(page: Page, gateway: Gateway, agent: Agent, approver: Approver) -> None:
    approval = ask(gateway, agent, 7)
    page.goto(f"http://{gateway.admin}/approvals/{approval}")
    expect(page.get_by_label("Approver token")).to_be_focused()
    page.keyboard.type(approver.token)
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Approve")).to_be_visible()
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.locator("button:focus").count() and page.locator("button:focus").inner_text() == "Reject":
            break
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("Rejected by Lead")


# What no browser would send.


def forms(gateway: Gateway, approver: Approver) -> tuple[requests.Session, str]:
    """A signed-in client and the secret of its forms."""
    client = requests.Session()
    base = f"http://{gateway.admin}/approvals"
    answer = client.post(f"{base}/sign-in", data={"token": approver.token, "next": "/approvals"})
    assert answer.status_code == 200
    found = re.search(r'name="csrf" value="([0-9a-f]{64})"', answer.text)
    assert found
    return client, found[1]


def test_a_link_alone_and_a_foreign_form_settle_nothing(gateway: Gateway, agent: Agent, approver: Approver) -> None:
    approval = ask(gateway, agent, 8)
    client, csrf = forms(gateway, approver)
    other, other_csrf = forms(gateway, approver)
    url = f"http://{gateway.admin}/approvals/{approval}/approve"
    action_hash = gateway.api("GET", f"/v1/approvals/{approval}").json()["action_hash"]
    good = {"csrf": csrf, "action_hash": action_hash}
    assert client.get(url).status_code == 405
    for data, headers, status in (
        ({}, {}, 403),
        ({**good, "csrf": other_csrf}, {}, 403),
        ({**good, "csrf": ""}, {}, 403),
        ({**good, "action_hash": "0" * 64}, {}, 409),
        (good, {"Origin": "https://evil.test"}, 403),
        (good, {"Origin": f"http://{gateway.admin}.evil.test"}, 403),
        (good, {"Sec-Fetch-Site": "cross-site"}, 403),
        (good, {"Sec-Fetch-Site": "same-site"}, 403),
        (f"csrf={csrf}&csrf={csrf}&action_hash={action_hash}", {"Content-Type": "application/x-www-form-urlencoded"}, 403),
    ):  # fmt: skip
        assert client.post(url, data=data, headers=headers, allow_redirects=False).status_code == status, (data, headers)
    assert requests.post(url, data=good, allow_redirects=False).status_code == 401
    assert gateway.api("GET", f"/v1/approvals/{approval}").json()["status"] == "pending"
    assert client.post(url, data=good, allow_redirects=False).status_code == 303
    assert gateway.api("GET", f"/v1/approvals/{approval}").json()["status"] == "approved"


def test_the_pages_are_locked_down(gateway: Gateway, approver: Approver) -> None:
    base = f"http://{gateway.admin}/approvals"
    answer = requests.post(f"{base}/sign-in", data={"token": approver.token, "next": "//evil.test"}, allow_redirects=False)
    assert answer.headers["location"] == "/approvals"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie and "Path=/approvals" in cookie
    assert approver.token not in answer.text + str(answer.headers)
    page = requests.get(base)
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["x-frame-options"] == "DENY" and page.headers["cache-control"] == "no-store"
    https = requests.post(
        f"{base}/sign-in", data={"token": approver.token}, allow_redirects=False,
        headers={"Origin": f"https://{gateway.admin}"},
    )  # fmt: skip
    assert "; Secure" in https.headers["set-cookie"]
    assert requests.get(f"http://{gateway.listen}/approvals").status_code == 404, "not on the agents' door"


def test_guessing_is_slowed_down(tmp_path: Path, one_origin: StrictOrigin) -> None:
    with Gateway(tmp_path / "guessed", [Route("github", one_origin.url)], [Credential(CANARY)]) as fresh:
        url = f"http://{fresh.admin}/approvals/sign-in"
        statuses = {requests.post(url, data={"token": f"guess-{n}"}).status_code for n in range(25)}
        assert statuses == {401, 429}
