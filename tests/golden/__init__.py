"""Stores of every engine as version 1 wrote them, and what they hold."""
