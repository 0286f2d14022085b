"""The commands of `python -m opencode_trio`: a batch of tasks, and the doctor.

May import: everything.
"""
