from . import test_client
from . import test_config
from . import test_inbound
from . import test_outbound
from . import test_security_config
from . import test_server_action
from . import test_views
from . import test_paging
