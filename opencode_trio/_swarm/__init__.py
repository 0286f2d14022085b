"""Many agents: who may run, on which server, in which worktree, and what they are doing.

May import: everything below, and session, server.

Promises to the folders above: limits and budgets hold over all agents, and each agent ends with
an outcome.
"""
