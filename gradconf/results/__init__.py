"""What the course has measured of the paper's claims, with where and how, and the rule that judges it."""

from gradconf.results.scale import Scale, at_scale
from gradconf.results.tables import Ledger, ledger
from gradconf.results.verdicts import Check, Claim

__all__ = ["Check", "Claim", "Ledger", "Scale", "at_scale", "ledger"]
