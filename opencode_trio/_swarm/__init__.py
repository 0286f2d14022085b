"""Many agents: who may run, on which server, in which worktree, and what they are doing.

May import: errors, events, results, _json, _checks, _tasks, config, asks, _turn, _process, _session,
session, server.

Promises to the folders above: limits and budgets hold over all agents, and each agent ends with
an outcome.
"""
