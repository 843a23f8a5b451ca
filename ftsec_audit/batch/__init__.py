"""Many artifacts: planned, scanned by workers that may die, stored one immutable document each, indexed.

    inputs → plan (metadata only) → executor (workers) → store (truth) → index (rebuildable)

The store decides what is finished; the index, the progress and the summary only show it.
"""
