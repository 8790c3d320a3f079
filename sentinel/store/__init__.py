"""The store: tables, the queue of cadences, schema migrations and the active release."""
