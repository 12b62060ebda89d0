"""Streams in CSV files: for appending and reading."""

from __future__ import annotations

from datastore_lab.engines.csv.engine import CSVEngine

__all__ = ["CSVEngine"]
