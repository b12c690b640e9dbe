"""The same model behind other servers."""
