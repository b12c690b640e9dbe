"""Tasks: one folder for each thing that can be learned; imports no torch.

A task is registered by name; other distributions add theirs through the entry point group ``tesela.tasks``.
"""
