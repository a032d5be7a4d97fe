"""The engine behind `gradconf.gram`: one forward and one backward pass, and no gradient that need not be formed."""

from gradconf.engine.contributions import Lookup, Outer, Rows
from gradconf.engine.rules import rule

__all__ = ["Lookup", "Outer", "Rows", "rule"]
