"""The Anthropic SDK: prints the words of a stream and when each arrived."""

import json
import time

from anthropic import Anthropic

client = Anthropic(max_retries=0, timeout=60)
words, times = [], []
message = {"role": "user", "content": "Say something."}
with client.messages.stream(model="claude-test", max_tokens=100, messages=[message]) as stream:
    for text in stream.text_stream:
        times.append(time.monotonic())
        words.append(text)
print(json.dumps({"words": words, "times": times}))
