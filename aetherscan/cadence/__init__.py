"""Which observations belong to one ON/OFF cadence, and how their rows and channels line up."""
