"""Streams in Arrow files: for appending and reading."""

from __future__ import annotations

from datastore_lab.engines.arrow.engine import ArrowEngine

__all__ = ["ArrowEngine"]
