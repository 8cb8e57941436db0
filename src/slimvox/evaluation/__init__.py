"""SUPERB's ten tasks on any frozen encoder, and mini-SUPERB, the same on small sets.

examples -> manifests, readers -> waveforms -> upstreams -> feature_cache -> tasks (heads, fitting) -> suite
"""
