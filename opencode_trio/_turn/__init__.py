"""What happened in a turn, when it is over, and what it may use.

May import: errors, events, results, _json, _protocol.

Promises to the folders above: pure computing over events; no clock, no event loop, no network.
"""
