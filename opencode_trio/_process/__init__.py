"""One child process and its family: environment, scratch directory, supervision, and the end.

May import: errors, events, results, _json, config, _checks, _tasks, _protocol, _turn.

Promises to the folders above: when a child's block is left, its whole family has ended and its
scratch directory is gone, also if this program is killed.
"""
