"""Annotation files of every format, read into one kind of record."""
