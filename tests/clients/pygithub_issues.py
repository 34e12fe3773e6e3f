"""PyGithub: `pygithub_issues.py REPOSITORY TITLE` lists issues, opens one and reads it again."""

import json
import os
import sys

from github import Auth, Github

api = Github(auth=Auth.Token(os.environ["GITHUB_TOKEN"]), retry=0, seconds_between_requests=0, seconds_between_writes=0)
repository = api.get_repo(sys.argv[1])
made = repository.create_issue(sys.argv[2])
titles = [issue.title for issue in repository.get_issues()]
print(json.dumps({"made": made.number, "url": made.url, "titles": titles}))
