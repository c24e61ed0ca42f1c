"""Two candidates, one plan: whoever leads works on it, and when it leaves the other one goes on.

python examples/leader_election.py WHERE      data/, unix:///run/app.sock, etcd://host
"""

import sys
import threading

import kvstore
from kvstore.recipes import Election, Session


def lead(store: kvstore.Store, name: str) -> None:
    with Session(
        store, ttl=5
    ) as session:  # ended by its block, also by an error; by itself, if the process dies
        election = Election(session, b"planner")
        election.campaign(name.encode())  # waits until it leads
        print(f"{name} leads")
        for _ in range(3):
            step = store.count(prefix=b"plan/") + 1
            done = store.txn([election.is_leader], [kvstore.ops.put(b"plan/%d" % step)])
            print(f"{name}: step {step}" if done.succeeded else f"{name} leads no more")


def main(where: str) -> None:
    with kvstore.connect(where) if "://" in where else kvstore.open(where) as store:
        candidates = [threading.Thread(target=lead, args=[store, name]) for name in ("ann", "bob")]
        for candidate in candidates:
            candidate.start()
        for candidate in candidates:
            candidate.join()
        store.delete(prefix=b"plan/")


if __name__ == "__main__":
    main(sys.argv[1])
