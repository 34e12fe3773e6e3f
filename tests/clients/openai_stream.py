"""The OpenAI SDK: prints the words of a stream and when each arrived."""

import json
import time

from openai import OpenAI

client = OpenAI(max_retries=0, timeout=60)
words, times = [], []
stream = client.chat.completions.create(
    model="gpt-test", messages=[{"role": "user", "content": "Say something."}], stream=True
)
for chunk in stream:
    if chunk.choices[0].delta.content:
        times.append(time.monotonic())
        words.append(chunk.choices[0].delta.content)
print(json.dumps({"words": words, "times": times}))
