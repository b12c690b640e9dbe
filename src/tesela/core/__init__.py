"""Foundation: names, configuration, errors, files and progress.

Imports neither torch nor any other room.
"""
