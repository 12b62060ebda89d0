"""Experiments as readable folders of participants, tasks and trials: for appending and reading."""

from __future__ import annotations

from datastore_lab.engines.trials.engine import TrialsEngine

__all__ = ["TrialsEngine"]
