"""How the client reads answers."""

import json
import struct
import unittest

from modelway import _values


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


if __name__ == "__main__":
    unittest.main()
