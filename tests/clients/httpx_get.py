"""httpx: `httpx_get.py 1.1|2 URL [KEY]`."""

import json
import sys

import httpx

headers = {"Authorization": f"Bearer {sys.argv[3]}"} if len(sys.argv) > 3 else {}
with httpx.Client(http2=sys.argv[1] == "2", timeout=30) as client:
    answer = client.get(sys.argv[2], headers=headers)
print(json.dumps({"status": answer.status_code, "body": answer.text, "version": answer.http_version}))
