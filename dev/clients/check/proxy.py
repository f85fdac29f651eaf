"""A TCP proxy between a client and Footfall that remembers what passes and can cut answers off."""

import random
import re
import socket
import threading


class Proxy:
    """Forwards connections to a port of this machine. Of the first `cut_answers` answers the client gets nothing: its
    connection is closed as soon as the proxy has them whole."""

    def __init__(self, target, cut_answers=0):
        self.target = target
        self.requests = 0  # those that reached the server
        self.refused = 0  # connections that the server did not take
        self.cuts = 0  # connections that ended for `cut_after`
        self.sent = bytearray()  # all that clients sent
        self.received = bytearray()  # all that the server sent
        self.cut_after = None  # a range: how many bytes of the server's a connection lasts
        self.to_cut = cut_answers
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self._listener.close()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        try:
            server = socket.create_connection(("127.0.0.1", self.target))
        except OSError:
            self.refused += 1
            client.close()
            return
        threading.Thread(target=self._forward_requests, args=(client, server), daemon=True).start()
        left = random.choice(self.cut_after) if self.cut_after else None
        try:
            while data := server.recv(65536):
                if left is not None and left <= len(data):
                    self.received += data[:left]
                    data = data[: left - self._before_the_end_of_an_event()]
                    client.sendall(data)
                    self.cuts += 1
                    break
                left = left and left - len(data)
                self.received += data
                if self.to_cut:
                    self._take_answer(server, data)
                    break
                client.sendall(data)
        except OSError:
            pass  # one of the two has broken the connection
        finally:
            _end(server)
            _end(client)

    def _before_the_end_of_an_event(self):
        """1 if only the empty line behind an event's id is missing, else 0. @microsoft/fetch-event-source takes the id with
        its line, and a cut at this one byte loses the event."""
        return 1 if re.search(rb"\nid: \S+\n\Z", self.received[-200:]) else 0

    def _take_answer(self, server, answer):
        """Reads one answer to its end and keeps it from the client."""
        self.to_cut -= 1
        while not _is_complete(answer):
            data = server.recv(65536)
            if not data:
                break
            self.received += data
            answer += data

    def _forward_requests(self, client, server):
        try:
            while data := client.recv(65536):
                self.requests += data.count(b" HTTP/1.1\r\n")
                self.sent += data
                server.sendall(data)
        except OSError:
            pass
        finally:
            _end(server)


def _is_complete(answer):
    head, separator, body = answer.partition(b"\r\n\r\n")
    if not separator:
        return False
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return len(body) >= int(value)
    return body.endswith(b"0\r\n\r\n")


def _end(connection):
    """Ends a connection, also for the thread that waits for bytes of it."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it has ended already
    connection.close()
