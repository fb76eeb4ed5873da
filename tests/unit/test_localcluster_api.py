"""The small API client, against a server that hangs up between two requests."""

import http.server
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from localcluster.api import ApiClient
from localcluster.pki import make_authority


class HangsUp(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def client(tmp_path: Path) -> Iterator[ApiClient]:
    folder = tmp_path / "pki"
    make_authority(folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), HangsUp)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "apiserver.crt", folder / "apiserver.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    made = ApiClient(server.server_port, folder)
    yield made
    made.close()
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_connection_that_was_closed_while_idle_is_replaced(client: ApiClient) -> None:
    for _ in range(5):
        assert client.get("/") == {}
        threading.Event().wait(0.05)
