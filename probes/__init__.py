"""Perception probes: style, period and content read from an image through CLIP, with one definition for steering and for auditing."""
