"""PyGithub: `pygithub_issues.py KEY REPOSITORY TITLE` lists issues, opens one and reads it again."""

import json
import sys

from github import Auth, Github

api = Github(auth=Auth.Token(sys.argv[1]), retry=0, seconds_between_requests=0, seconds_between_writes=0)
repository = api.get_repo(sys.argv[2])
made = repository.create_issue(sys.argv[3])
titles = [issue.title for issue in repository.get_issues()]
print(json.dumps({"made": made.number, "url": made.url, "titles": titles}))
