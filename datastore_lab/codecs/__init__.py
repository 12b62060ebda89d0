"""Objects to records and back. Each codec is a leaf: it reaches others only through its callbacks."""
