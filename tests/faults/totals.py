"""What `/metrics` says, in the way that tests ask for it."""

import re
from collections import defaultdict

SAMPLE = re.compile(r"^(pointsman_[a-z_]+)(?:\{[^\n]*\})? ([0-9.e+-]+)$", re.MULTILINE)


def totals(text: bytes) -> defaultdict[str, float]:
    """Return the gateway's own figures, each summed over its labels; what is not there is 0."""
    found: defaultdict[str, float] = defaultdict(float)
    for name, value in SAMPLE.findall(text.decode()):
        found[name] += float(value)
    return found
