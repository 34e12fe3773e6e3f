"""Writes accepted.json and refused.json from the inputs below.

    .cache/tests/venv/bin/python tests/vectors/make.py

The canonical bytes come from the `rfc8785` package, never from our own code:
for everything that aegis-jcs-1 accepts, RFC 8785 must give the same answer.
An input is text; `make` stands for prefix + repeat * count + suffix, and `hex`
for bytes that are no text at all.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import rfc8785

HERE = Path(__file__).resolve().parent
MIB = 1024 * 1024

ACCEPTED = {
    "known answer": '{"action":"merge_pull_request","mutates_state":true,"parameters":{"base_branch":"main"},'
    '"resource":"payments-service#482","tool":"github"}',
    "known answer, keys and blanks elsewhere": ' { "tool" : "github" ,\n\t"resource":"payments-service#482", "parameters"'
    ':{"base_branch":"main"},\r\n"mutates_state":true, "action":"merge_pull_request" } ',
    "null": "null",
    "true": "true",
    "false": "false",
    "empty object": "{}",
    "empty array": "[ ]",
    "empty string": '""',
    "empty key": '{"":1,"a":2}',
    "nested empties": '[[],{},[{}],{"a":[]}]',
    "zero": "0",
    "minus zero": "-0",
    "minus zero as a fraction": "-0.0",
    "one as a fraction": "1.0",
    "one with an exponent": "10e-1",
    "largest integer": "9007199254740991",
    "smallest integer": "-9007199254740991",
    "largest integer as a fraction": "9007199254740991.0",
    "largest integer with an exponent": "9.007199254740991e15",
    "tenth": "0.1",
    "sum of tenths": "0.30000000000000004",
    "third": "0.3333333333333333",
    "too many digits": "333333333.33333329",
    "smallest plain fraction": "0.000001",
    "largest small exponent": "0.0000001",
    "exponent in capitals": "1E-7",
    "exponent with plus": "1e+3",
    "smallest double": "5e-324",
    "rounds to smallest double": "4.9406564584124654e-324",
    "underflows to zero": "1e-400",
    "smallest normal double": "2.2250738585072014e-308",
    "half even": "9007199254740990.5",
    "long fraction": "123456789012.34567",
    "integers in an array": "[56,1,-1,100000,4503599627370497]",
    "escapes that JSON has": r'"\b\t\n\f\r\"\\\/"',
    "escapes it has not": r'"\u0000\u0001\u001f\u007f"',
    "escape of a letter": r'"\u0061\u00e9\u20ac"',
    "hex in capitals": r'"\u20AC\u00E9"',
    "line separators stay": '"\u2028\u2029"',
    "delete and C1 controls stay": '"\u007f\u0080\u009f"',
    "surrogate pair as escapes": r'"\ud83d\ude00"',
    "same as UTF-8": '"😀"',
    "not normalised: composed": '"é"',
    "not normalised: decomposed": '"e\u0301"',
    "noncharacters": '"\ufffe\uffff"',
    "byte order mark inside": '"\ufeff"',
    "markup": '"</script><!--&amp;"',
    "keys by code point": '{"b":1,"a":2,"B":3,"_":4,"1":5,"10":6,"2":7}',
    "key and longer key": '{"aa":1,"a":2,"a-":3,"a.":4}',
    "keys beyond ASCII": '{"\u20ac":1,"\u00e9":2,"z":3,"\ufb33":4}',
    "keys that are escapes": r'{"\u0061b":1,"\u0000":2,"\n":3}',
    "keys beyond the BMP among lower ones": '{"😀":1,"z":2,"\u20ac":3}',
    "composed and decomposed keys are two": '{"\u00e9":1,"e\u0301":2}',
    "keys in each object of an array": '[{"b":1,"a":2},{"d":1,"c":2}]',
    "prototype words are plain keys": '{"__proto__":1,"constructor":2,"toString":3}',
    "engine words are plain keys": '{"__entity":{"type":"Agent","id":"x"},"__extn":1}',
    "numbers as keys stay text": '{"9007199254740993":1,"1e3":2,"-0":3}',
    "dates stay text": '"2026-01-31T23:59:60.000Z"',
    "depth 64": {"prefix": "[" * 63, "repeat": "[]", "count": 1, "suffix": "]" * 63},
    "exactly 1 MiB": {"prefix": '"', "repeat": "a", "count": MIB - 2, "suffix": '"'},
    "a real action": '{"tool":"github","action":"create_or_update_file","resource":"octo/hello","mutates_state":true,'
    '"parameters":{"path":"notes/a b.txt","message":"añadir","content":"aGVsbG8=","branch":"topic"}}',
}

# Reasons are the names that every implementation gives (see `action/tests/vectors.rs`).
REFUSED = {
    "duplicate_key": {
        "plain": '{"a":1,"a":2}',
        "same value": '{"a":1,"a":1}',
        "through an escape": r'{"a":1,"\u0061":2}',
        "deep": '{"x":[{"a":1,"b":2,"a":3}]}',
        "empty key": '{"":1,"":2}',
        "surrogate pair and UTF-8": '{"😀":1,"\\ud83d\\ude00":2}',
    },
    "number_range": {
        "2^53": "9007199254740992",
        "-2^53": "-9007199254740992",
        "2^53+1": "9007199254740993",
        "2^64": "18446744073709551616",
        "2^63-1": "9223372036854775807",
        "1e20": "1e20",
        "1e20 as digits": "100000000000000000000",
        "2^53 as a fraction": "9007199254740992.0",
        "largest double": "1.7976931348623157e308",
        "overflow": "1e999",
        "negative overflow": "-1e999",
        "in a key's value": '{"a":[1,2,9007199254740992]}',
    },
    "ambiguous_order": {
        "astral before private use": '{"\uffff":1,"😀":2}',
        "written the other way round": '{"😀":2,"\uffff":1}',
        "after a common prefix": '{"k\ue000":1,"k😀":2}',
        "deep": '[{"a":{"\ufb33":1,"\U0001d11e":2}}]',
    },
    "too_deep": {
        "65 arrays": {"prefix": "[" * 64, "repeat": "[]", "count": 1, "suffix": "]" * 64},
        "65 objects": {"prefix": "", "repeat": '{"a":', "count": 65, "suffix": "1" + "}" * 65},
        "far too deep": {"prefix": "", "repeat": "[", "count": 100_000, "suffix": ""},
    },
    "too_large": {
        "one byte more than 1 MiB": {"prefix": '"', "repeat": "a", "count": MIB - 1, "suffix": '"'},
        "blanks count": {"prefix": "1", "repeat": " ", "count": MIB, "suffix": ""},
    },
    "syntax": {
        "nothing": "",
        "blank": " ",
        "two values": "1 2",
        "trailing comma": "[1,]",
        "comma in object": '{"a":1,}',
        "missing comma": "[1 2]",
        "comment": "[1/**/]",
        "single quotes": "{'a':1}",
        "bare key": "{a:1}",
        "NaN": "NaN",
        "Infinity": "-Infinity",
        "leading zero": "01",
        "leading plus": "+1",
        "leading point": ".5",
        "trailing point": "5.",
        "bare exponent": "1e",
        "hexadecimal": "0x10",
        "undefined": "undefined",
        "capitals": "True",
        "control byte in a string": '"\u0001"',
        "newline in a string": '"a\nb"',
        "unknown escape": r'"\x41"',
        "short escape": r'"\u12"',
        "lone high surrogate": r'"\ud800"',
        "lone low surrogate": r'"\udc00"',
        "surrogates in the wrong order": r'"\ude00\ud83d"',
        "high surrogate and letter": r'"\ud800a"',
        "lone surrogate in a key": r'{"\ud800":1}',
        "byte order mark": "\ufeff{}",
        "vertical tab as blank": "\v1",
        "no-break space as blank": "\u00a01",
        "open string": '"abc',
        "open array": "[1",
        "overlong UTF-8": {"hex": "22c0af22"},
        "bare continuation byte": {"hex": "228022"},
        "surrogate in UTF-8": {"hex": "22eda08022"},
        "beyond Unicode": {"hex": "22f490808022"},
        "UTF-16": {"hex": "fffe31003200"},
        "NUL behind the value": {"hex": "3100"},
    },
}


def text_of(source: Any) -> bytes:
    """The bytes of an input in any of its three spellings."""
    if isinstance(source, str):
        return source.encode()
    if "hex" in source:
        return bytes.fromhex(source["hex"])
    return (source["prefix"] + source["repeat"] * source["count"] + source["suffix"]).encode()


def accepted() -> list[dict[str, Any]]:
    vectors = []
    for name, source in ACCEPTED.items():
        canonical = rfc8785.dumps(json.loads(text_of(source)))
        vector: dict[str, Any] = {"name": name, **spelled(source)}
        # What is long is made the same way on both sides and compared by its hash.
        if isinstance(source, str):
            vector["canonical"] = canonical.decode()
        vectors.append({**vector, "sha256": hashlib.sha256(canonical).hexdigest()})
    return vectors


def refused() -> list[dict[str, Any]]:
    return [
        {"name": name, **spelled(source), "reason": reason}
        for reason, sources in REFUSED.items()
        for name, source in sources.items()
    ]


def spelled(source: Any) -> dict[str, Any]:
    if isinstance(source, str):
        return {"input": source}
    return source if "hex" in source else {"make": source}


def write(name: str, vectors: list[dict[str, Any]]) -> None:
    lines = ",\n".join(json.dumps(vector, ensure_ascii=True) for vector in vectors)
    (HERE / name).write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    write("accepted.json", accepted())
    write("refused.json", refused())
