"""Known-bad samples with ground truth, and their benign twins.

Nothing here is a usable weapon: targets are inert constants, restricted topics are coined words, attacks
that remove refusals run only on bases this package trained itself, and every file written says so.
"""
