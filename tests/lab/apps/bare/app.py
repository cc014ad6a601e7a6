"""A server that uses only the standard library: a long-running process with little in memory."""

import socketserver
import sys

import probe


class Request(socketserver.StreamRequestHandler):
    def handle(self):
        path = self.rfile.readline().split()[1].decode()
        while self.rfile.readline().strip():
            pass
        status, text = probe.answer(path)
        self.wfile.write(("HTTP/1.0 %d Lab\r\n\r\n%s" % (status, text)).encode())


socketserver.UnixStreamServer(sys.argv[1], Request).serve_forever()
