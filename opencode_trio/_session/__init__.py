"""A conversation on a server: its turns, one at a time, and what they ask.

May import: errors, events, results, _json, _tasks, config, asks, _protocol, _turn, _server.

Promises to the folders above: a turn always ends, its result agrees with what the server has
stored, and when its block is left the server has stopped working on it.
"""
