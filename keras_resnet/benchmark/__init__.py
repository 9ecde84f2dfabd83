"""Timings, alternating: see `pipelines`."""
