"""SUPERB's ten tasks on any frozen encoder, and mini-SUPERB, the same on small sets.

examples -> manifests, readers -> waveforms -> upstreams -> feature_cache -> features -> tasks (heads, fitting) -> suite
"""
