"""One server: starting it, its HTTP interface, its event stream, and whether it still lives.

May import: errors, events, _json, _checks, _tasks, config, _protocol, _turn, _process.

Promises to the folders above: a call is answered or raises a typed error; each event reaches the
turn that it belongs to; a gap in the stream is told.
"""
