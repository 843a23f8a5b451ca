"""The service: webhooks fill a queue, the queue is scanned by batches, a dashboard shows the store.

    webhook, API, watch → queue (a table) → scanner (child processes: `batch`) → store → index → pages, API

Crash-only: what is wanted is in the queue, what is finished is in the store, the service remembers nothing.
"""
