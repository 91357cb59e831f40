"""Parts of merganser.posterior."""
