"""A hostile world: trials in which strangers do their worst to a broker beside an honest client."""
