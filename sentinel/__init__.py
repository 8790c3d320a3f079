"""The service: it watches folders, queues and searches cadences, and records and announces candidates."""
