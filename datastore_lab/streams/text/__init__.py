"""Tables of text with a readable sidecar that says types, attributes and sums.

`datastore_lab.streams.text.cells` turns values into text and back exactly,
`datastore_lab.streams.text.sidecar` is what lies beside, `datastore_lab.streams.text.write` appends,
`datastore_lab.streams.text.read` reads, `datastore_lab.streams.text.lines` finds lines.
"""

from __future__ import annotations
