"""Readers of SUPERB's data as its corpora are distributed, one corpus per file; a task names its reader."""
