"""Distances between encoders, on held-out batches and on audio sources of the user."""
