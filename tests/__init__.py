from . import test_inbound
from . import test_client
from . import test_outbound
from . import test_server_action
