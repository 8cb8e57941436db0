"""Encoding of audio files to feature files."""
