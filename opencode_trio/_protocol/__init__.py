"""How to talk to opencode: requests, events, stored messages and permission rules, as values.

One folder for each line of opencode holds its routes, wire types, rules, ids and quirks.  Nothing
outside of this folder names any of them: it asks a `Dialect`.  (The environment, the settings file
and the command line of a child are still those of 1.x, in `_process/`.)

May import: errors, events, _json, config.

Promises to the folders above: pure functions and values; what makes no sense on the wire is kept,
and never fatal.
"""
