"""The results store: its tables, the queue of cadences, migrations, and the active release."""
