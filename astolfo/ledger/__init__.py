"""The ledger: config/ as data and pure functions. Imports no torch and knows nothing of the workflow or the engine."""

from astolfo.ledger.ledger import Ledger, Run, load
from astolfo.ledger.recipe import Recipe, recipe_of
from astolfo.ledger.references import Reference, parse
from astolfo.ledger.steps import Plan, plan_of, step_of

__all__ = ["Ledger", "Plan", "Recipe", "Reference", "Run", "load", "parse", "plan_of", "recipe_of", "step_of"]
