from . import dispatcher  # before the routes, which name its routing type
from . import main
from . import openapi
