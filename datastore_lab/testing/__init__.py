"""For authors of engines, codecs and devices: what tells whether a part is right.

`samples` and `equality` need numpy alone, `strategies` and `stateful` need Hypothesis, `conformance` needs
pytest. Nothing here is imported at run time.
"""
