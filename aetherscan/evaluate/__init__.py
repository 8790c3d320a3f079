"""Search known skies, and measure recall and false alarms."""
