"""One turn by `opencode run`: a child, its lines, and how it ended.

May import: errors, events, results, _json, _tasks, _protocol, _turn, _process.

Promises to the folders above: events in order, a typed end, and nothing left after the block.
"""
