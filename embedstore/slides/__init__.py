"""Slides and the patches around annotations: levels, regions, reading ahead."""
