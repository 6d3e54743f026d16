import datetime
import ipaddress
import socket
import ssl
import tempfile
import threading
import time
from contextlib import contextmanager

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from odoo.fields import Command
from odoo.tests import TransactionCase

from .receiver import Receiver


class OutboundCase(TransactionCase):
    """Partners that are sent to a real server on a loopback port, which the guard lets pass."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.receiver = cls.enterClassContext(Receiver())
        cls.allow("127.0.0.1")
        cls.partners = cls.env["res.partner"].create(
            [{"name": f"Partner {number}", "ref": f"P{number}", "city": "Graz"} for number in range(1, 6)]
        )
        cls.partner = cls.partners[0]
        cls.config = cls.make_config()

    def setUp(self):
        super().setUp()
        self.receiver.clear()

    @classmethod
    def allow(cls, hosts):
        cls.env["ir.config_parameter"].set_param("bj_api_sync.allowed_hosts", hosts)

    @classmethod
    def make_config(cls, method="POST", path="/partners", **values):
        lines = {"ref": "code", "name": "name", "city": "address.city"}
        return cls.env["bj.api.sync.config"].create(
            {
                "name": "Partners out",
                "request_type": "out",
                "http_method_ids": [Command.set(cls.env.ref(f"bj_api_sync.http_method_{method.lower()}").ids)],
                "request_url": path if "://" in path else f"{cls.receiver.url}{path}",
                "model_id": cls.env["ir.model"]._get_id("res.partner"),
                "authorization_type": "none",
                "user_id": cls.env.ref("base.user_admin").id,
                "line_ids": [
                    Command.create(
                        {
                            "field_id": cls.env["ir.model.fields"]._get("res.partner", name).id,
                            "external_key": key,
                            "is_record_identifier": name == "ref",
                        }
                    )
                    for name, key in lines.items()
                ],
                **values,
            }
        )

    @classmethod
    def read_back(cls, config, **keys):
        """Let fields be read from the answer: field name = key of the answer."""
        config.write(
            {
                "line_ids": [
                    Command.create(
                        {
                            "field_id": cls.env["ir.model.fields"]._get("res.partner", name).id,
                            "response_key": key,
                        }
                    )
                    for name, key in keys.items()
                ]
            }
        )

    def push(self, records=None, config=None, **options):
        records = self.partner if records is None else records
        return (config or self.config)._make_outbound_http_request(records, **options)

    def logs(self, config=None):
        """The logs of a configuration, oldest first."""
        return self.env["bj.api.log"].search([("config_id", "=", (config or self.config).id)], order="id")


@contextmanager
def trickling_server(content, pause=0.005):
    """A server that answers one byte at a time."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        connection, _address = listener.accept()
        with connection:
            connection.recv(65536)
            try:
                for byte in content:
                    connection.send(bytes([byte]))
                    time.sleep(pause)
            except OSError:
                pass  # the client gave up: that is the test

    threading.Thread(target=serve, daemon=True).start()
    with listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"


@contextmanager
def tls_receiver():
    """A receiver behind TLS, and the file of its certificate, which no authority signed."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.timezone.utc)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "receiver")])
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now).not_valid_after(now + datetime.timedelta(hours=1))
    certificate = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    with tempfile.NamedTemporaryFile(suffix=".pem") as file, Receiver() as receiver:
        file.write(certificate.public_bytes(serialization.Encoding.PEM))
        encoding = (
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        file.write(key.private_bytes(*encoding))
        file.flush()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file.name)
        receiver._server.socket = context.wrap_socket(receiver._server.socket, server_side=True)
        yield receiver, file.name
