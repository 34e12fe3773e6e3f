"""requests: `requests_get.py URL`."""

import json
import sys

import requests

answer = requests.get(sys.argv[1], timeout=30)
print(json.dumps({"status": answer.status_code, "body": answer.text}))
