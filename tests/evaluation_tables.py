"""Tables of labelled recordings for the tests."""

from __future__ import annotations

from pathlib import Path


def write_table(path: Path, rows: list[dict[str, str]]) -> Path:
    lines = ["\t".join(rows[0])] + ["\t".join(row.values()) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
