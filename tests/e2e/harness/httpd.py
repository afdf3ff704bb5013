"""python's http.server on one address, without its name lookups (the lab has no DNS). The path
/whoami is answered with the client's address and port.

usage: httpd.py ADDRESS PORT FOLDER
"""

from __future__ import annotations

import functools
import http.server
import socket
import socketserver
import sys


class Server(http.server.ThreadingHTTPServer):
    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]


class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path != "/whoami":
            super().do_GET()
            return
        body = "{} {}\n".format(*self.client_address[:2]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    address, port, folder = sys.argv[1:]
    Server.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
    handler = functools.partial(Handler, directory=folder)
    Server((address, int(port)), handler).serve_forever()


if __name__ == "__main__":
    main()
