from . import bj_api_sync_redrive
from . import bj_api_sync_trigger
