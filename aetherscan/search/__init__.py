"""From the power of a cadence to its candidates."""
