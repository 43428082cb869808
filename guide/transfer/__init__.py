"""Photographs repainted: engines, targets, distances, and what comes of a run."""
