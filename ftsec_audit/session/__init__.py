"""A loaded model and its base, asked the same questions: safe loading, batches, budgets, prompts.

Importing this package costs nothing: torch, transformers and peft are imported when a model is opened.
"""

from ftsec_audit.session.budget import Budget
from ftsec_audit.session.kept import KeptBase
from ftsec_audit.session.model import ModelSession
from ftsec_audit.session.opening import Backend, SessionOptions, Sessions, open_sessions

__all__ = ["Backend", "Budget", "KeptBase", "ModelSession", "SessionOptions", "Sessions", "open_sessions"]
