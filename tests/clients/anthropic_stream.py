"""The Anthropic SDK: `anthropic_stream.py KEY` prints the words of a stream and when each arrived."""

import json
import sys
import time

from anthropic import Anthropic

client = Anthropic(api_key=sys.argv[1], max_retries=0, timeout=60)
words, times = [], []
message = {"role": "user", "content": "Say something."}
with client.messages.stream(model="claude-test", max_tokens=100, messages=[message]) as stream:
    for text in stream.text_stream:
        times.append(time.monotonic())
        words.append(text)
print(json.dumps({"words": words, "times": times}))
