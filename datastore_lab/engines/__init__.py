"""Where records live. Each engine is a leaf: it knows its own medium and no other engine."""
