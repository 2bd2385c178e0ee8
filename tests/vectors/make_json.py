"""Vectors of docs/spec/json.md: `canonical.json`."""

from __future__ import annotations

import json
from typing import Any

from gradseal.proof import canonical

Vectors = dict[str, Any]

# RFC 8785 section 3.2.2 without its floats, and section 3.2.3.
_RFC_8785_LITERALS = (
    r'{"string":"\u20ac$\u000F\u000aA\u0027\u0042\u0022\u005c\\\"\/","literals":[null,true,false]}'
)
_RFC_8785_SORTING = r"""{
  "\u20ac": "Euro Sign",
  "\r": "Carriage Return",
  "\ufb33": "Hebrew Letter Dalet With Dagesh",
  "1": "One",
  "\ud83d\ude00": "Emoji: Grinning Face",
  "\u0080": "Control",
  "\u00f6": "Latin Small Letter O With Diaeresis"
}"""


def canonical_json() -> Vectors:
    """docs/spec/json.md."""
    return {
        "about": (
            "encode: `json`, read by any JSON parser, encodes to the bytes `canonical`, which decode to the "
            "same value. invalid: the bytes must be refused. floats and integers: `value` is written as "
            "`json`; floats are the bits of a binary64, and `value` names them. Depth is limited to 32."
        ),
        "encode": _canonical_encode(),
        "invalid": _canonical_invalid(),
        "floats": [
            {"value": "0.0", "json": "0000000000000000"},
            {"value": "-0.0", "json": "8000000000000000"},
            {"value": "1.0", "json": "3ff0000000000000"},
            {"value": "0.1", "json": "3fb999999999999a"},
            {"value": "5e-324", "json": "0000000000000001", "source": "RFC 8785 appendix B"},
            {"value": "-5e-324", "json": "8000000000000001", "source": "RFC 8785 appendix B"},
            {"value": "1.7976931348623157e+308", "json": "7fefffffffffffff", "source": "RFC 8785 appendix B"},
            {"value": "9007199254740992.0", "json": "4340000000000000", "source": "RFC 8785 appendix B"},
            {"value": "333333333.3333332", "json": "41b3de4355555553", "source": "RFC 8785 appendix B"},
            {"value": "inf", "json": "7ff0000000000000"},
            {"value": "-inf", "json": "fff0000000000000"},
            {"value": "nan", "json": "7ff8000000000000"},
            {"value": "nan", "json": "fff8000000000001"},
        ],
        "invalid_floats": [
            "",
            "3ff000000000000",
            "3ff00000000000000",
            "3FF0000000000000",
            "0x3ff00000000000",
            1,
        ],
        "integers": [
            {"value": str(n), "json": canonical.integer_to_json(n)}
            for m in (0, 1, 2**53 - 1, 2**53, 2**63 - 1, 2**63)
            for n in sorted({m, -m})
            if n < 2**63
        ],
        "invalid_integers": [
            {"json": "1", "reason": "a string where a number would do"},
            {"json": "9007199254740991", "reason": "a string where a number would do"},
            {"json": "09007199254740992", "reason": "leading zero"},
            {"json": "+9007199254740992", "reason": "plus sign"},
            {"json": "9_007_199_254_740_992", "reason": "underscores"},
            {"json": " 9007199254740992", "reason": "space"},
            {"json": "9223372036854775808", "reason": "beyond 64 bits"},
            {"json": "-9223372036854775809", "reason": "beyond 64 bits"},
            {"json": True, "reason": "a boolean"},
            {"json": None, "reason": "null"},
        ],
    }


def _canonical_encode() -> list[Vectors]:
    cases = [
        ("RFC 8785 section 3.2.2", _RFC_8785_LITERALS),
        ("RFC 8785 section 3.2.3", _RFC_8785_SORTING),
        ("", "null"),
        ("", '""'),
        ("", "[ ]"),
        ("", "{ }"),
        ("", "[9007199254740991, -9007199254740991, 0]"),
        ("", '{"b": [{"d": 1, "c": 2}], "a": {"": null}, "A": true, "aa": false}'),
        ("", r'"\u0000\u0001\b\t\n\u000b\f\r\u001f\u007f\u2028\ufeff"'),
        ("", "[" * 32 + "]" * 32),
    ]
    return [
        {"json": text, "canonical": canonical.encode(json.loads(text)).hex()} | _source(source)
        for source, text in cases
    ]


def _canonical_invalid() -> list[Vectors]:
    cases: list[tuple[str, bytes]] = [
        ("empty", b""),
        ("white space", b'{"a": 1}'),
        ("newline at the end", b"{}\n"),
        ("keys out of order", b'{"b":1,"a":2}'),
        ("keys in the order of code points, not of UTF-16", '{"\ufb33":1,"\U0001f600":2}'.encode()),
        ("the same key twice", b'{"a":1,"a":1}'),
        ("the same key twice, once escaped", rb'{"a":1,"\u0061":1}'),
        ("escaped where it need not be", rb'"\u0061"'),
        ("upper-case escape", rb'"\u001F"'),
        ("escape of a character that has a short one", rb'"\u000a"'),
        ("escaped solidus", rb'"\/"'),
        ("control character", b'"\x01"'),
        ("lone surrogate, escaped", rb'"\ud800"'),
        ("lone surrogate, encoded", b'"\xed\xa0\x80"'),
        ("not UTF-8", b'"\xff"'),
        ("overlong UTF-8", b'"\xc0\x80"'),
        ("byte order mark", b"\xef\xbb\xbfnull"),
        ("float", b"1.0"),
        ("float by exponent", b"1e2"),
        ("negative zero", b"-0"),
        ("leading zero", b"01"),
        ("plus sign", b"+1"),
        ("NaN", b"NaN"),
        ("Infinity", b"[-Infinity]"),
        ("integer beyond 2**53 - 1", b"9007199254740992"),
        ("integer below -(2**53 - 1)", b"-9007199254740992"),
        ("integer of a hundred digits", b"9" * 100),
        ("comma at the end", b"[1,]"),
        ("two values", b"{}{}"),
        ("cut short", b'{"a":'),
        ("deeper than 32 arrays", b"[" * 33 + b"]" * 33),
        ("deeper than 32 objects", b'{"":' * 33 + b"0" + b"}" * 33),
        ("only opening brackets", b"[" * 1000),
    ]
    return [{"reason": reason, "bytes": data.hex()} for reason, data in cases]


def _source(source: str) -> Vectors:
    return {"source": source} if source else {}
