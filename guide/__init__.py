"""Steers diffusers pipelines by perception probes."""
