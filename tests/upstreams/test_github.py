"""The emulator behind the strict origin, with PyGithub and no gateway: what the e2e tests build on."""

from __future__ import annotations

import github as pygithub
import pytest

from upstreams.github import GitHub

REPO = "octo/hello"


def client(hub: GitHub, token: str | None = None) -> pygithub.Github:
    auth = pygithub.Auth.Token(token or hub.token)
    return pygithub.Github(base_url=hub.url, auth=auth, retry=0, seconds_between_requests=0, seconds_between_writes=0)


def test_pygithub_sends_another_scheme_which_the_origin_notices(github: GitHub) -> None:
    """PyGithub writes `token …`; the gateway is to write `Bearer …`, so only its requests are clean."""
    with pytest.raises(pygithub.BadCredentialsException):
        client(github).get_user().login  # noqa: B018
    assert github.origin.violations == ["authorization is not the real credential"]
    github.origin.violations.clear()


@pytest.fixture()
def direct(github: GitHub):
    """The origin told to take PyGithub's own spelling, and back again afterwards."""
    github.origin.rotate(f"token {github.token}")
    yield client(github)
    github.origin.rotate(f"Bearer {github.token}")
    # PyGithub keeps its connection open and says so; that is not what is tested here.
    github.origin.violations.clear()


def test_the_emulator_does_what_the_tests_need(direct: pygithub.Github, github: GitHub) -> None:
    repo = direct.get_repo(REPO)
    assert repo.default_branch == "main"
    for number in range(35):
        repo.create_issue(f"issue {number}")
    assert repo.get_issues().totalCount == 35
    assert len(list(repo.get_issues())) == 35

    head = repo.get_branch("main").commit.sha
    repo.create_git_ref("refs/heads/change", head)
    made = repo.create_file("notes/a b.txt", "add", "hello", branch="change")
    assert repo.get_contents("notes/a b.txt", ref="change").decoded_content == b"hello"
    pull = repo.create_pull(title="Change", base="main", head="change", body="b")
    assert pull.head.sha == made["commit"].sha

    github.protect("main")
    assert repo.get_branch("main").protected is True
    with pytest.raises(pygithub.GithubException):
        pull.merge(sha="0" * 40)
    assert pull.merge().merged is True


def test_the_head_of_a_pull_request_can_move(direct: pygithub.Github) -> None:
    repo = direct.get_repo("octo/spare")
    repo.create_git_ref("refs/heads/moving", repo.get_branch("main").commit.sha)
    repo.create_file("a.txt", "a", "a", branch="moving")
    pull = repo.create_pull(title="Moving", base="main", head="moving", body="")
    before = pull.head.sha
    repo.create_file("b.txt", "b", "b", branch="main")
    pull.update_branch()
    assert repo.get_pull(pull.number).head.sha != before
