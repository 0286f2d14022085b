"""One child process and its family: environment, scratch directory, supervision, and the end.

May import: errors, results, _json, _checks, _tasks, config, _turn.

Promises to the folders above: when a child's block is left, its whole family has ended and its
scratch directory is gone, also if this program is killed.
"""
