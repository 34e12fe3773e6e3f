"""requests: `requests_get.py URL [KEY]`."""

import json
import sys

import requests

headers = {"Authorization": f"Bearer {sys.argv[2]}"} if len(sys.argv) > 2 else {}
answer = requests.get(sys.argv[1], headers=headers, timeout=30)
print(json.dumps({"status": answer.status_code, "body": answer.text}))
