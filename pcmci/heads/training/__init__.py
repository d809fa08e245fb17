"""From a store and a recipe to a run folder."""
