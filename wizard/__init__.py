from . import bj_api_sync_preview
from . import bj_api_sync_redrive
from . import bj_api_sync_sample
from . import bj_api_sync_trigger
