"""PyGithub, unmodified, with a base URL and an agent token: what it does every day works, what is dangerous does not."""

from __future__ import annotations

import itertools

import github as pygithub
import pytest

from harness.clients import denial_of, pygithub_client
from harness.gateway import Agent, Gateway
from upstreams.github import GitHub

pytestmark = pytest.mark.binary
REPO = "octo/hello"
_numbers = itertools.count(1)


@pytest.fixture()
def worker(hub: Gateway) -> Agent:
    return hub.enrol()


@pytest.fixture()
def client(hub: Gateway, worker: Agent) -> pygithub.Github:
    return pygithub_client(hub, worker)


def make_pull(client: pygithub.Github, github: GitHub, repository: str = REPO) -> pygithub.PullRequest.PullRequest:
    """A branch with one commit and a pull request for it, all through the gateway."""
    name = f"topic-{next(_numbers)}"
    tip = github.ask("GET", f"/repos/{repository}/branches/main")["commit"]["sha"]
    github.ask("POST", f"/repos/{repository}/git/refs", {"ref": f"refs/heads/{name}", "sha": tip})
    repo = client.get_repo(repository)
    repo.create_file(f"notes/{name}.txt", "add notes", "hello", branch=name)
    return repo.create_pull(title=name, base="main", head=name, body="please")


def test_it_reads(client: pygithub.Github, hub: Gateway) -> None:
    repo = client.get_repo(REPO)
    assert repo.full_name == REPO
    assert repo.get_contents("README.md").decoded_content.startswith(b"# hello")
    assert client.get_user().login == "octo"


def test_urls_in_answers_lead_back_through_the_gateway(client: pygithub.Github, hub: Gateway, github: GitHub) -> None:
    """PyGithub refuses to follow a URL to another host than its base; it follows these."""
    repo = client.get_repo(REPO)
    assert repo.url == f"{hub.base()}/repos/{REPO}"
    issue = repo.create_issue("linked")
    assert issue.url.startswith(hub.base())
    assert issue.user.url.startswith(hub.base())
    # A lazy object completes itself from its url.
    assert repo.get_issue(issue.number).user.name == "Octo"
    assert github.url not in repo.url


def test_text_that_looks_like_a_url_is_left_alone(client: pygithub.Github, github: GitHub) -> None:
    text = f"see {github.url}/repos/{REPO} and https://api.github.com/user"
    issue = client.get_repo(REPO).create_issue("urls", body=text)
    assert client.get_repo(REPO).get_issue(issue.number).body == text


def test_it_creates_issues_and_comments(client: pygithub.Github) -> None:
    repo = client.get_repo(REPO)
    issue = repo.create_issue("A title with ünïcode", body="b", labels=[])
    issue.create_comment("hello")
    assert [comment.body for comment in repo.get_issue(issue.number).get_comments()] == ["hello"]
    issue.edit(state="closed")
    assert repo.get_issue(issue.number).state == "closed"


def test_it_follows_pages(client: pygithub.Github) -> None:
    repo = client.get_repo(REPO)
    for number in range(35):
        repo.create_issue(f"page {number}")
    pages = repo.get_issues(state="all")
    assert pages.totalCount >= 35
    assert len({issue.number for issue in pages}) == pages.totalCount
    assert len(pages.get_page(1)) >= 5


def test_it_writes_contents_and_opens_a_pull_request(client: pygithub.Github, github: GitHub) -> None:
    pull = make_pull(client, github)
    repo = client.get_repo(REPO)
    found = repo.get_contents(f"notes/{pull.title}.txt", ref=pull.title)
    assert found.decoded_content == b"hello"
    repo.update_file(found.path, "more", "hello again", found.sha, branch=pull.title)
    assert repo.get_contents(found.path, ref=pull.title).decoded_content == b"hello again"
    assert [each.number for each in repo.get_pulls(state="open", head=pull.title)] != []


def test_file_names_with_blanks_and_accents(client: pygithub.Github, github: GitHub) -> None:
    pull = make_pull(client, github)
    repo = client.get_repo(REPO)
    repo.create_file("döcs/a b.txt", "add", "x", branch=pull.title)
    assert repo.get_contents("döcs/a b.txt", ref=pull.title).decoded_content == b"x"


def test_a_merge_into_a_protected_branch_waits_for_a_person_and_works_once(
    client: pygithub.Github, hub: Gateway, github: GitHub
) -> None:
    github.protect("main")
    lead = hub.approver()
    pull = make_pull(client, github)
    with pytest.raises(pygithub.GithubException) as refused:
        pull.merge(merge_method="squash")
    assert refused.value.status == 403
    denial = denial_of(refused.value)
    assert denial["approval"] and denial["receipt"]
    assert denial["approval"] in str(refused.value.data["message"])

    shown = hub.api("GET", f"/v1/approvals/{denial['approval']}", token=lead.token).json()
    assert (shown["status"], shown["resource"]) == ("pending", f"{REPO}#{pull.number}")
    assert hub.settle(lead, denial["approval"]).status_code == 200

    assert pull.merge(merge_method="squash").merged is True
    assert github.ask("GET", f"/repos/{REPO}/pulls/{pull.number}")["merged"] is True

    before = github.origin.mark()
    with pytest.raises(pygithub.GithubException) as again:
        pull.merge(merge_method="squash")
    assert again.value.status == 403
    assert [r.method for r in github.origin.since(before)[1] if r.method != "GET"] == []


def test_an_approval_is_for_the_head_that_was_shown(client: pygithub.Github, hub: Gateway, github: GitHub) -> None:
    github.protect("main")
    lead = hub.approver()
    pull = make_pull(client, github)
    with pytest.raises(pygithub.GithubException) as refused:
        pull.merge()
    first = denial_of(refused.value)["approval"]
    assert hub.settle(lead, first).status_code == 200
    move_head(github, pull.number)

    with pytest.raises(pygithub.GithubException) as moved:
        pull.merge()
    assert moved.value.status == 403
    second = denial_of(moved.value)["approval"]
    assert second != first
    assert github.ask("GET", f"/repos/{REPO}/pulls/{pull.number}")["merged"] is False
    # What is now asked for is the new head, and that can be approved.
    assert hub.settle(lead, second).status_code == 200
    assert pull.merge().merged is True


def test_the_merge_that_was_approved_names_its_head_upstream(
    client: pygithub.Github, hub: Gateway, github: GitHub
) -> None:
    """Between our last look and the merge the head may still move: only the upstream can tell."""
    github.protect("main")
    pull = make_pull(client, github)
    with pytest.raises(pygithub.GithubException) as refused:
        pull.merge()
    hub.settle(hub.approver(), denial_of(refused.value)["approval"])
    before = github.origin.mark()
    pull.merge()
    sent = [request for request in github.origin.since(before)[1] if request.method == "PUT"]
    assert [request.json()["sha"] for request in sent] == [pull.head.sha]


def test_a_rejected_merge_stays_rejected(client: pygithub.Github, hub: Gateway, github: GitHub) -> None:
    github.protect("main")
    pull = make_pull(client, github)
    with pytest.raises(pygithub.GithubException) as refused:
        pull.merge()
    assert hub.settle(hub.approver(), denial_of(refused.value)["approval"], "reject").status_code == 200
    with pytest.raises(pygithub.GithubException):
        pull.merge()
    assert github.ask("GET", f"/repos/{REPO}/pulls/{pull.number}")["merged"] is False


def test_one_approval_does_not_pay_for_another_merge(client: pygithub.Github, hub: Gateway, github: GitHub) -> None:
    github.protect("main")
    first, second = make_pull(client, github), make_pull(client, github)
    with pytest.raises(pygithub.GithubException) as refused:
        first.merge(merge_method="squash")
    hub.settle(hub.approver(), denial_of(refused.value)["approval"])
    with pytest.raises(pygithub.GithubException):
        second.merge(merge_method="squash")
    with pytest.raises(pygithub.GithubException):
        first.merge(merge_method="rebase")
    for pull in (first, second):
        assert github.ask("GET", f"/repos/{REPO}/pulls/{pull.number}")["merged"] is False
    assert first.merge(merge_method="squash").merged is True


def test_another_agent_cannot_use_the_approval(client: pygithub.Github, hub: Gateway, github: GitHub) -> None:
    github.protect("main")
    pull = make_pull(client, github)
    with pytest.raises(pygithub.GithubException) as refused:
        pull.merge()
    hub.settle(hub.approver(), denial_of(refused.value)["approval"])
    thief = pygithub_client(hub, hub.enrol())
    with pytest.raises(pygithub.GithubException):
        thief.get_repo(REPO).get_pull(pull.number).merge()
    assert github.ask("GET", f"/repos/{REPO}/pulls/{pull.number}")["merged"] is False


def test_deleting_a_repository_is_denied(client: pygithub.Github, hub: Gateway, github: GitHub) -> None:
    repo = client.get_repo(REPO)
    before = github.origin.mark()
    with pytest.raises(pygithub.GithubException) as refused:
        repo.delete()
    assert refused.value.status == 403
    assert github.origin.since(before) == (0, [])
    leaf = hub.leaf_of(denial_of(refused.value)["receipt"])
    assert (leaf["decision"], leaf["action"], leaf["resource"]) == ("deny", "delete_repository", REPO)
    assert github.ask("GET", f"/repos/{REPO}")["full_name"] == REPO


def test_a_workflow_file_is_denied(client: pygithub.Github, github: GitHub) -> None:
    repo = client.get_repo(REPO)
    before = github.origin.mark()
    with pytest.raises(pygithub.GithubException) as refused:
        repo.create_file(".github/workflows/x.yml", "m", "on: push")
    assert refused.value.status == 403
    assert [r.method for r in github.origin.since(before)[1] if r.method != "GET"] == []


def test_a_revoked_agent_is_refused_at_once(
    client: pygithub.Github, hub: Gateway, worker: Agent, github: GitHub
) -> None:
    repo = client.get_repo(REPO)
    assert hub.set_agent(worker, "revoke").status_code == 200
    before = github.origin.mark()
    with pytest.raises(pygithub.BadCredentialsException):
        repo.get_issues().totalCount  # noqa: B018
    assert github.origin.since(before) == (0, [])


def test_without_a_token_it_answers_as_github_would(hub: Gateway) -> None:
    anonymous = pygithub.Github(base_url=hub.base(), retry=0)
    with pytest.raises(pygithub.GithubException) as refused:
        anonymous.get_user().login  # noqa: B018
    assert refused.value.status == 401
    assert refused.value.headers["www-authenticate"].lower().startswith("basic")


def test_no_agent_token_and_only_the_real_credential_arrived(github: GitHub) -> None:
    assert github.origin.requests
    assert github.origin.violations == []
    assert {request.one("authorization") for request in github.origin.requests} == {f"Bearer {github.token}"}


def move_head(github: GitHub, number: int) -> None:
    """Somebody else brings the pull request up to date with a new commit on main."""
    name = f"moved-{next(_numbers)}.txt"
    body = {"message": "on main", "content": "eA==", "branch": "main"}
    github.ask("PUT", f"/repos/{REPO}/contents/{name}", body)
    before = github.ask("GET", f"/repos/{REPO}/pulls/{number}")["head"]["sha"]
    github.ask("PUT", f"/repos/{REPO}/pulls/{number}/update-branch", {})
    assert github.ask("GET", f"/repos/{REPO}/pulls/{number}")["head"]["sha"] != before
