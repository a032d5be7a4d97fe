"""The engine behind `gradconf.gram`: one forward and one backward pass, and no gradient that need not be formed.

Its files, in an order to read them:

- `tape` sees every torch function that receives a parameter while the model runs.
- `registry` and `rules` say, by torch function, what such a use contributes.
- `outer` and `contributions` are what it contributes: how it is added to K with or without forming gradients.
- `scaling` and `accumulator` keep products in range and sum them in float64.
- `places` notices samples that change places inside the model.
- `plans` and `decisions` hold and choose the path of each parameter; `proof` makes sure that rules are right.
- `budget` shares out `max_memory`; `shelf` keeps within it.
- `passes` runs blocks of samples, and `work` as many passes as it takes.
"""

import gradconf.engine.rules  # noqa: F401  (registers them)
from gradconf.engine.contributions import Lookup, Rows
from gradconf.engine.outer import Outer
from gradconf.engine.registry import rule

__all__ = ["Lookup", "Outer", "Rows", "rule"]
