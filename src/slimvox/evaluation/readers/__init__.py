"""Readers of SUPERB's data as its corpora are distributed, one corpus a file; a task names its reader."""
