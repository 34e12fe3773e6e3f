"""httpx: `httpx_get.py 1.1|2 URL`."""

import json
import sys

import httpx

with httpx.Client(http2=sys.argv[1] == "2", timeout=30) as client:
    answer = client.get(sys.argv[2])
print(json.dumps({"status": answer.status_code, "body": answer.text, "version": answer.http_version}))
