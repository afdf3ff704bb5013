import os

from sagbench import boxes


def test_the_datagram_is_whole():
    frame = bytes.fromhex(boxes.datagram("02:00:00:00:00:01"))
    assert frame[:6] == bytes.fromhex("020000000001") and frame[12:14] == b"\x08\x00"
    total = sum(int.from_bytes(frame[n : n + 2], "big") for n in range(14, 34, 2))
    assert (total & 0xFFFF) + (total >> 16) == 0xFFFF, "checksum of the IP header"
    assert int.from_bytes(frame[16:18], "big") == 30 and int.from_bytes(frame[38:40], "big") == 10
    # What the receiver looks for.
    assert frame[36:38] == (9999).to_bytes(2, "big")


def test_processor_time_is_by_thread():
    spent, sleeps = boxes.processor_time(os.getpid())
    assert spent.keys() == sleeps.keys() and f"/{os.getpid()}" in next(iter(spent))
    assert sum(spent.values()) > 0


def test_memory_is_in_megabytes():
    found = boxes.smaps(os.getpid())
    assert 1 < found["Rss"] < 1000 and found["Anonymous"] <= found["Rss"]
