"""What agents did and when, as figures, text, a live table and a page.

May import: events, asks, _turn, _swarm.

Promises to the folders above: bounded memory however long a swarm runs; nothing here changes a run.
"""
