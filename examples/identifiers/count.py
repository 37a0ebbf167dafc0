"""One map task: count the identifiers in some Python files and leave the counts in a file.

python count.py LIST OUTPUT   LIST holds one path a line; OUTPUT gets a JSON object, identifier -> count.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections import Counter
from pathlib import Path

IDENTIFIER = re.compile(r"[^\W\d]\w*")


def count(paths: list[str]) -> Counter[str]:
    """How often each identifier stands in these files; undecodable bytes are passed over."""
    found: Counter[str] = Counter()
    for path in paths:
        found.update(IDENTIFIER.findall(Path(path).read_text(encoding="utf-8", errors="replace")))
    return found


def main() -> None:
    listing, output = sys.argv[1:]
    counts = count(Path(listing).read_text().splitlines())
    # Written aside and renamed, so that whoever reads OUTPUT never sees half of it, even when this task runs twice.
    partial = Path(f"{output}.{os.getpid()}")
    partial.write_text(json.dumps(counts))
    partial.replace(output)
    print(f"{sum(counts.values())} identifiers in {output}")


if __name__ == "__main__":
    main()
