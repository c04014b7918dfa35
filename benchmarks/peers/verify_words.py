"""Our verifier as a process: JSON lines of [[response ids, record], ...] on stdin, of rewards on stdout. The first line is the task."""

import json
import sys

import numpy as np

from rljax import tasks
from rljax.tasks.task import response_text
from rljax.text.hf_tokenizer import load_tokenizer


def main() -> None:
    about = json.loads(sys.stdin.readline())
    tokenizer = load_tokenizer(about["folder"])
    task = tasks.make_task("fruit_text", tokenizer, **about["options"])
    print(json.dumps("ready"), flush=True)
    ends = set(about["stop_ids"])
    for line in sys.stdin:
        rows = [(np.asarray(ids), record) for ids, record in json.loads(line)]
        texts = [(response_text(tokenizer, ids, int(ids[-1]) in ends, task.stops), record) for ids, record in rows]
        print(json.dumps([float(task.verify(*row)) for row in texts]), flush=True)


if __name__ == "__main__":
    main()
