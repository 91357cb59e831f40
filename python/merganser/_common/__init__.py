"""What several of the private packages use."""
