"""rljax beside google-tunix, and beside transformers and TRL, on the same shapes: ``python -m benchmarks.peers``.

cases.py          what is measured
countdown.py      the model that all of them load: its weights decide how long responses are
pairs.py          one worker process for each library, in turn; ratios of neighbours in time
work_rljax.py     the worker of rljax; work_tunix.py and work_trl.py: those of the peers, in environments of their own
json_worker.py    what workers share: they answer JSON lines
table.py          the tables of docs/performance.md, from the JSON lines in benchmarks/results/
"""
