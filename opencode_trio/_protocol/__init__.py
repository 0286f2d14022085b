"""How to talk to opencode: requests, events and stored messages, as values.

One folder for each line of opencode holds its routes, wire types, tool names, variables and
quirks; nothing outside of this folder names any of them.

May import: errors, events, results, _json, config, asks, _checks.

Promises to the folders above: pure functions and values; bytes that make no sense never raise here.
"""
