"""Layouts of folders: what is there, what it is named, what it stands for."""
