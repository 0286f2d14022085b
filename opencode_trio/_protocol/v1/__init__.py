"""opencode 1.x: its routes, its event stream, its stored messages, and the lines of its `run`.

May import: what its parent folder may.
"""
