"""What the course has measured of the paper's claims, with where and how, and the rule that judges it."""

from gradconf.results.tables import Ledger, ledger
from gradconf.results.verdicts import Check, Claim

__all__ = ["Check", "Claim", "Ledger", "ledger"]
