"""Asks 40 questions through `many` with a journal; killed by the test. Not a test: argv is URL and folder."""

import sys

from fabrica.chat import Budgeted, Endpoint, Request, many, user


def main(url: str, folder: str) -> None:
    endpoint = Endpoint(url, "served", allow_network=True, timeout=30, retries=0)
    model = Budgeted(endpoint, max_tokens=100_000, ledger=f"{folder}/budget.sqlite")
    requests = [Request(user(f"question {n}")) for n in range(40)]
    for reply in many(model, requests, journal=f"{folder}/journal.sqlite"):
        print(reply.text, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
