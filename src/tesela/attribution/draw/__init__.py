"""Attribution maps as pictures and files."""
