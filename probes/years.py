"""Years as people write them: a number, a span in full or cut short, or text with one in it."""
import re

FIRST, LAST = 1000, 2100
SPAN = re.compile(r"(?<!\d)(\d{4})\s*(?:-|\u2010|\u2011|\u2012|\u2013|\u2014|/|to|and|or)\s*(\d{1,4})(?![\d]|[-/.]\d)", re.IGNORECASE)
YEAR = re.compile(r"(?<!\d)\d{4}(?!\d)")
BEFORE_CHRIST = re.compile(r"\bb\.?\s?c(\b|\.)|\bbce\b", re.IGNORECASE)
NAN = float("nan")


def year(text: object) -> float:
    """`1650`, `about 1650` and `before 1650` as 1650, the middle of `1601 to 1650` and of `1450-55`; NaN for none in 1000 to 2100."""
    text = str(text).strip()
    try:
        return _inside(float(text))
    except ValueError:
        pass
    if BEFORE_CHRIST.search(text):
        return NAN
    span = SPAN.search(text)
    if span:
        first, last = span.groups()
        last = first[:4 - len(last)] + last
        return _inside((int(first) + int(last)) / 2 if last >= first else float(first))
    found = [float(one) for one in YEAR.findall(text)]
    return _inside((found[0] + found[-1]) / 2) if found else NAN


def _inside(value: float) -> float:
    return value if FIRST <= value <= LAST else NAN
