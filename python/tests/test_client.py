"""How the client reads answers."""

import http.server
import json
import struct
import threading
import unittest

from modelway import Client, ServerError, _values


def answered(*items, declared="INT64"):
    """What the client makes of an output of BYTES in binary form."""
    body = b"".join(struct.pack("<I", len(item)) + item for item in items)
    head = {
        "outputs": [
            {"name": "y", "datatype": "BYTES", "shape": [len(items)], "parameters": {"binary_data_size": len(body)}}
        ]
    }
    text = json.dumps(head).encode()
    made = _values.answer(str(len(text)), text + body, {"y": declared})["y"]
    return [item.decode() if isinstance(item, bytes) else item for item in made]


class Answers(unittest.TestCase):
    def test_numbers_of_which_some_are_missing_come_as_json(self):
        self.assertEqual(answered(b"1", b"null"), [1, None])

    def test_texts_where_numbers_are_declared_stay_texts(self):
        self.assertEqual(answered(b"abc", b"12"), ["abc", "12"])
        self.assertEqual(answered(b"12"), ["12"])
        self.assertEqual(answered(b"null", b"abc"), ["null", "abc"])
        self.assertEqual(answered(b"null", b"1", declared="BYTES"), ["null", "1"])


class Elsewhere(http.server.BaseHTTPRequestHandler):
    """No server of models."""

    def do_GET(self):
        moved = self.path.startswith("/v2/models/moved")
        self.send_response(302 if moved else 200)
        self.send_header("Location", "https://elsewhere/")
        self.end_headers()
        self.wfile.write(b"<html>")

    def log_message(self, *_): ...


class Addresses(unittest.TestCase):
    def test_what_is_no_server_of_models_is_said(self):
        server = http.server.HTTPServer(("127.0.0.1", 0), Elsewhere)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        self.addCleanup(lambda: (server.shutdown(), thread.join(), server.server_close()))
        client = Client(f"127.0.0.1:{server.server_port}")
        self.addCleanup(client.close)
        with self.assertRaisesRegex(ServerError, "does not speak the Open Inference Protocol"):
            client.predict("m", [1])
        with self.assertRaisesRegex(ServerError, "sends to another address: https://elsewhere/"):
            client.predict("moved", [1])
        for url in ("ftp://a", "", "http://"):
            with self.assertRaisesRegex(ValueError, "is no URL of a server"):
                Client(url)
        with self.assertRaisesRegex(ValueError, "has a user in it"):
            Client("http://user:word@127.0.0.1")


if __name__ == "__main__":
    unittest.main()
