"""How long the web demo takes to answer: an upload, its slider at new ages and at known ones.

Requests go over HTTP, one after the other, to a server started here; times are those that a
browser on this machine would wait for. Writes benchmarks/results/demo.json.

    python -m benchmarks.demo
    python -m benchmarks.demo --checkpoint_path sam_ffhq_aging.pdparams --ages 11 --name demo_1024
"""

import argparse
import http.client
import json
import statistics
import threading
import time

from benchmarks import timing
from paddle_sam.demo.options import DemoOptions
from paddle_sam.demo.serve import make_demo_server


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint_path", default="", help="default: the embedded model")
    parser.add_argument("--name", default="demo", help="of the record")
    parser.add_argument("--ages", type=int, default=101, help="number of places of the slider")
    args = parser.parse_args(argv)
    record = {"machine": timing.machine(), "ages": args.ages}
    server = make_demo_server(DemoOptions(port=0, checkpoint_path=args.checkpoint_path))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    ask(connection, "POST", "/example")  # reads the face detector
    session, record["upload_s"] = ask(connection, "POST", "/example")
    face = f"/session/{json.loads(session)['session']}/0"
    ages = [37 * place % 101 for place in range(args.ages)]
    for name in ("new_age", "known_age"):
        times = [ask(connection, "GET", f"{face}/age/{age}.png")[1] for age in ages]
        record[name] = {
            "median_s": statistics.median(times),
            "slowest_s": max(times),
            "largest_of_95_percent_s": sorted(times)[int(0.95 * (len(times) - 1))],
        }
    start = time.perf_counter()
    ask(connection, "POST", f"{face}/video", 202)
    session_path = face.rsplit("/", 1)[0]
    while not json.loads(ask(connection, "GET", f"{session_path}/video")[0])["ready"]:
        time.sleep(0.1)
    record["video_s"] = time.perf_counter() - start
    server.shutdown()
    print(json.dumps(record, indent=2))
    print("written:", timing.write(args.name, record))


def ask(
    connection: http.client.HTTPConnection, method: str, path: str, status: int = 200
) -> tuple[bytes, float]:
    """The answer to a request, and after how many seconds it was there."""
    start = time.perf_counter()
    connection.request(method, path)
    response = connection.getresponse()
    data = response.read()
    assert response.status == status, data
    return data, time.perf_counter() - start


if __name__ == "__main__":
    main()
