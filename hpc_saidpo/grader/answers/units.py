"""The unit at the end of an answer, apart from its value."""

from __future__ import annotations

import re

from . import typed

_PLURALS = {
    "feet": "foot",
    "inches": "inch",
    "people": "person",
    "degrees": "degree",
    "pct": "percent",
    "metre": "meter",
}
_NAMES = {
    "cm": "centimeter", "mm": "millimeter", "km": "kilometer", "m": "meter", "dm": "decimeter", "nm": "nanometer",
    "in": "inch", "ft": "foot", "yd": "yard", "mi": "mile", "kg": "kilogram", "g": "gram", "mg": "milligram",
    "lb": "pound", "lbs": "pound", "oz": "ounce", "s": "second", "sec": "second", "min": "minute", "hr": "hour",
    "h": "hour", "hrs": "hour", "ml": "milliliter", "l": "liter", "mph": "mile/hour", "$": "dollar", "cents": "cent",
}  # fmt: skip
_SCALES = (  # sizes of units, one dimension each
    {"millimeter": 1, "centimeter": 10, "decimeter": 100, "meter": 1000, "kilometer": 10**6},
    {"inch": 1, "foot": 12, "yard": 36, "mile": 63360},
    {"milligram": 1, "gram": 1000, "kilogram": 10**6},
    {"ounce": 1, "pound": 16},
    {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800},
    {"milliliter": 1, "liter": 1000},
    {"cent": 1, "dollar": 100},
)
_KNOWN = {"year"}.union(*_SCALES)
_BARE = (
    "square centimeters?|square meters?|square units?|square inches|square feet|cubic centimeters?|cubic meters?|"
    "cubic units?|cubic inches|cubic feet|centimeters?|millimeters?|kilometers?|meters?|metres?|inches|inch|feet|foot|"
    "yards?|miles?|kilograms?|grams?|pounds?|ounces?|seconds?|minutes?|hours?|days?|weeks?|months?|years?|degrees?|"
    "percent|pct|dollars?|cents?|liters?|litres?|gallons?|units?|mph|km/h|kmh|m/s|ft/s|cm|mm|km|kg|mg|mL|ml|sec|min|hrs?|ft|"
    "yd|lbs?|oz|sq|people|students?|ways?|times|points?|cows|eggs|erg|eV|Hz|yuan|rad(?:ians?)?|J|K|N|V|W"
)
_POWER = r"(?:\s*\^\s*\{?\s*-?\d\s*\}?)?"
_ONE = rf"(?:\\text\{{[^{{}}]*\}}{_POWER}|(?<![a-zA-Z\\])(?:{_BARE})(?![a-zA-Z]){_POWER})"
_TRAILING = re.compile(
    rf"\s*(?:\\degree\s*[CF]?|%|{_ONE}(?:\s*(?:/|\*)?\s*{_ONE})*(?:\s*(?:/|per)\s*[a-zA-Z]+{_POWER})?)\s*$"
)
_SINGLE = re.compile(r"(?<=[\d}\])i])\s*(?:[mgsLhJNVWK]|AU|in)(?:\s*\^\s*\{?\s*[23]\s*\}?)?\s*$")
_ATTACHED = re.compile(rf"(?<=[\d}}\])])\s*(?:{_BARE}){_POWER}\s*$")


def split(plain: str) -> tuple[str, str]:
    """(value, unit) of a plain answer; the unit is "" if there is none."""
    for pattern in (_TRAILING, _ATTACHED, _SINGLE):
        match = pattern.search(plain)
        if match and match.group().strip() and plain[: match.start()].strip():
            value = plain[: match.start()].strip()
            words = " ".join(re.findall(r"[A-Za-z]+", match.group().replace("\\text", "")))
            if words and not typed.is_unit(words):
                return plain, ""
            if re.search(r"[\d)}\]a-zA-Z]$", value) and not re.search(r"\\(?:text)?$", value):
                return value.rstrip("* "), _name(match.group())
    return plain, ""


def _name(unit: str) -> str:
    text = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", unit).replace("\\degree", "degree").replace("%", "percent")
    text = re.sub(r"\b(?:square|sq\.?) (\w+)", r"\1^2", re.sub(r"\b(?:cubic|cu\.?) (\w+)", r"\1^3", text.lower()))
    text = re.sub(r"\s*\^\s*\{?\s*(\d)\s*\}?", r"^\1", text).replace("{", "").replace("}", "").replace(".", "")
    parts = re.split(r"(\s+|/|\^\d|\*)", text)
    return "".join(_one(part) for part in parts).strip().replace(" ", "")


def _one(word: str) -> str:
    word = _PLURALS.get(word, word)
    if len(word) > 3 and word.endswith("s"):
        word = word[:-1]
    return _NAMES.get(word, word)


def conflict(gold: str, answer: str) -> bool:
    """Whether two units cannot be the same: both known, and different."""

    def known(unit: str) -> bool:
        return unit.split("^")[0].split("/")[0] in _KNOWN

    return bool(gold and answer and gold != answer and known(gold) and known(answer))


def factor(gold: str, answer: str) -> str:
    """The factor from the answer's unit to the gold one, in LaTeX; "" if they do not convert."""
    gold_name, _, gold_power = gold.partition("^")
    name, _, power = answer.partition("^")
    for scale in _SCALES:
        if gold_name in scale and name in scale and gold_power == power and power in ("", "2", "3"):
            exponent = int(power or 1)
            return f"\\frac{{{scale[name] ** exponent}}}{{{scale[gold_name] ** exponent}}}"
    return ""
