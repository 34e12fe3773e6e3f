"""Random JSON texts, sound and unsound, in spellings that people do not write."""

from __future__ import annotations

import json
import random
from typing import Any

LETTERS = 'aZ0 _-é€\u2028\x7f\ufeff\ue000\ufb33\uffff😀\U0001d11e\U0010ffff\u0301"\\/\b\n\r\t\x00\x1f'
# One fault each, planted into a text that is sound otherwise: what it is refused for.
FAULTS = {
    "duplicate_key": ['{"a":1,"a":2}', r'{"a":1,"\u0061":1}', '{"":0,"":0}', r'{"😀":1,"\ud83d\ude00":2}'],
    "number_range": ["9007199254740992", "-9007199254740993", "1e20", "1e999", "123456789012345678901234567890", "9007199254740992.0", "9.1e15", "-1E+400"],
    "ambiguous_order": ['{"\uffff":1,"😀":2}', r'{"\ud83d\ude00":1,"\ue000":2}', '{"k\ufb33":1,"k\U0001d11e":2}'],
    "syntax": ["01", "+1", "1.", ".5", "1e", "-", "NaN", "Infinity", "'a'", "tru", "[1,]", '{"a":1,}', "{a:1}", '"\\x41"', '"\\u12"', r'"\ud800"', r'"\udc00\ud800"', r'{"\ud800":1}', '"\n"', "[1 2]", "0x1", "1_0", "\u00a01", ",", "nul", "--1", "1e+", '{"a" 1}', "[,1]", '"\\"'],
}  # fmt: skip


class Texts:
    """A stream of texts from a seed. Each comes with the reason it has to be refused for; `""` where nobody knows."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def next(self) -> tuple[bytes, str | None]:
        kind = self.random.random()
        if kind < 0.62:
            return self.value(0).encode(), None
        if kind < 0.82:
            reason = self.random.choice(list(FAULTS))
            self.planted = self.random.choice(FAULTS[reason])
            return self.around(self.planted).encode(), reason
        if kind < 0.86:
            return self.deep()
        return self.broken(), ""

    def call(self) -> dict[str, Any]:
        """A call with parameters of any kind; some are long, some reserved."""
        parameters = {"v": json.loads(self.value(0)), self.random.choice(["a", "é", "$bulk", "k"]): self.scalar()}
        if self.random.random() < 0.3:
            letters, size = self.random.choice("xä€😀"), self.random.choice([65_535, 65_536, 65_537])
            parameters["long"] = [letters * (size // len(letters.encode()) + self.random.randrange(2))]
        if self.random.random() < 0.1:
            parameters["deep"] = json.loads("[" * 62 + self.random.choice(['"x"', '{"$stream":1}', "[]"]) + "]" * 62)
        return {
            "tool": self.random.choice(["github", "a.b-c_d", "ä", ""]) if self.random.random() < 0.1 else "github",
            "action": "merge", "resource": self.random.choice([None, "octo/hello#1", "ö", "a\u0085b"]),
            "mutates_state": self.random.random() < 0.5, "parameters": parameters,
        }  # fmt: skip

    def value(self, depth: int) -> str:
        pick = self.random.random()
        if depth > 3 or pick < 0.45:
            return self.scalar()
        if pick < 0.7:
            return self.array([self.value(depth + 1) for _ in range(self.random.randrange(4))])
        keys = {self.string(): None for _ in range(self.random.randrange(5))}
        return self.object([(key, self.value(depth + 1)) for key in agreeing(list(keys))])

    def scalar(self) -> str:
        pick = self.random.random()
        if pick < 0.15:
            return self.random.choice(["null", "true", "false"])
        return self.number() if pick < 0.6 else self.spelled(self.string())

    def number(self) -> str:
        choose = self.random
        pick = choose.randrange(8)
        if pick == 0:
            return str(choose.randint(-(2**53) + 1, 2**53 - 1))
        if pick == 1:
            return str(choose.randint(-300, 300))
        if pick == 2:
            return repr(choose.uniform(-1, 1) * 10.0 ** choose.randint(-320, 15))
        if pick == 3:
            return f"{choose.randint(0, 10**9)}.{choose.randint(0, 10**25)}"
        if pick == 4:
            return f"{choose.choice(['', '-'])}{choose.randint(0, 9)}{choose.choice('eE')}{choose.choice(['', '-', '+'])}{choose.randint(0, 14)}"
        if pick == 5:
            return choose.choice(
                [
                    "-0",
                    "0.0",
                    "-0e5",
                    "1e-400",
                    "5e-324",
                    "2.2250738585072014e-308",
                    "1E-7",
                    "0.000001",
                    "9007199254740991.0",
                    "9007199254740990.5",
                    "1e0",
                    "4.35",
                    "0.1e1",
                ]
            )
        if pick == 6:
            return f"{choose.randint(1, 9)}.{choose.randint(0, 10**17)}e{choose.randint(-330, 14)}"
        return f"{choose.randint(0, 2**53 - 1)}e-{choose.randint(0, 330)}"

    def string(self) -> str:
        size = self.random.choice([0, 1, 1, 2, 3, 5, 12])
        return "".join(self.random.choice(LETTERS) for _ in range(size))

    def spelled(self, text: str) -> str:
        """A string as JSON, some of its characters escaped without need."""
        out = []
        for letter in text:
            if self.random.random() < 0.3:
                units = letter.encode("utf-16-be")
                form = self.random.choice(["04x", "04X"])
                out += [f"\\u{int.from_bytes(units[at : at + 2]):{form}}" for at in range(0, len(units), 2)]
            elif letter == "/" and self.random.random() < 0.5:
                out.append("\\/")
            else:
                out.append(json.dumps(letter, ensure_ascii=False)[1:-1])
        return '"' + "".join(out) + '"'

    def blank(self) -> str:
        return self.random.choice(["", "", "", " ", "\n", "\t\r "])

    def array(self, items: list[str]) -> str:
        return "[" + ",".join(self.blank() + item + self.blank() for item in items) + self.blank() + "]"

    def object(self, pairs: list[tuple[str, str]]) -> str:
        members = [f"{self.blank()}{self.spelled(k)}{self.blank()}:{self.blank()}{v}{self.blank()}" for k, v in pairs]
        return "{" + ",".join(members) + self.blank() + "}"

    def around(self, inner: str) -> str:
        """The value somewhere inside a sound one."""
        for _ in range(self.random.randrange(4)):
            sound = [self.value(4) for _ in range(self.random.randrange(3))]
            if self.random.random() < 0.5:
                # In front of it nothing may be wrong, and behind it nothing either.
                inner = self.array([*sound, inner])
            else:
                pairs = [(f"k{at}", item) for at, item in enumerate([*sound, inner])]
                self.random.shuffle(pairs)
                inner = self.object(pairs)
        return inner

    def deep(self) -> tuple[bytes, str | None]:
        levels = self.random.choice([60, 63, 64, 65, 66, 200])
        text = self.number() if levels < 64 else "1"
        for _ in range(levels):
            text = f"[{text}]" if self.random.random() < 0.5 else f'{{"a":{text}}}'
        return text.encode(), "too_deep" if levels > 64 else None

    def broken(self) -> bytes:
        """A text with a few bytes changed: mostly unsound, and in more than one way at once."""
        text = bytearray(self.value(0).encode())
        for _ in range(self.random.randint(1, 3)):
            at = self.random.randrange(len(text) + 1)
            change: Any = self.random.randrange(4)
            if change == 0:
                text[at:at] = bytes([self.random.choice(b'{}[]:,"0eE+-.\\u \x00\x80\xc0\xed\xf4\xff')])
            elif change == 1:
                del text[at : at + self.random.randint(1, 4)]
            elif change == 2 and at < len(text):
                text[at] = self.random.randrange(256)
            else:
                text[at:at] = text[max(0, at - 6) : at]
        return bytes(text)


def agreeing(keys: list[str]) -> list[str]:
    """As many of them as sort alike in both orders."""
    kept: list[str] = []
    for key in keys:
        tried = [*kept, key]
        if sorted(tried) == sorted(tried, key=lambda each: each.encode("utf-16-be")):
            kept = tried
    return kept
