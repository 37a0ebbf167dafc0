"""The reduce task: add up what the map tasks counted.

python merge.py DIRECTORY OUTPUT   adds up DIRECTORY/part-*.json into the JSON file OUTPUT.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path


def main() -> None:
    directory, output = sys.argv[1:]
    parts = sorted(Path(directory).glob("part-*.json"))
    total: Counter[str] = Counter()
    for part in parts:
        total.update(json.loads(part.read_text()))
    Path(output).write_text(json.dumps(total))
    print(f"{len(parts)} parts, {sum(total.values())} identifiers, {len(total)} different ones")


if __name__ == "__main__":
    main()
