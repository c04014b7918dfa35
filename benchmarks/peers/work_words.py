"""The worker of TRL for ``benchmarks.peers.word_problems``: GRPOTrainer as it is, on the same prompts, with our verifier.

Runs in the environment of ``make peers``. stdin: the case, as JSON. stdout: one JSON line for each step.
"""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
import trl


class Verifier:
    """Our verifier, in a process of our own environment: rows of (response ids, record) -> rewards."""

    def __init__(self, command: list[str], about: dict[str, Any]):
        env = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=env)
        self.ask(about)

    def ask(self, what: Any) -> Any:
        assert self.process.stdin and self.process.stdout
        print(json.dumps(what), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the verifier has ended")
        return json.loads(line)


class Watch(transformers.TrainerCallback):
    """Seconds of each step without what happens between steps, and the model as a folder every so many steps."""

    def __init__(self, case: dict[str, Any], tell: Any, seen: dict[str, Any]):
        self.case, self.tell, self.seen, self.began = case, tell, seen, time.perf_counter()

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        line = {"step": state.global_step, "seconds": round(time.perf_counter() - self.began, 3)} | self.seen
        line["peak_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6)
        if state.global_step in self.case["evaluated"]:
            model.save_pretrained(Path(self.case["out"]) / f"step_{state.global_step}")
        self.tell(line)


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print does not belong to the answers
    case = json.loads(sys.stdin.readline())
    torch.set_num_threads(case["cores"])
    rows = [json.loads(line) for line in Path(case["questions"]).read_text().split("\n") if line]
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(case["folder"])
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    for row in rows:
        if tokenizer(text=row["prompt"])["input_ids"] != row["ids"]:
            raise SystemExit(f"the tokenizers do not agree on {row['prompt']!r}")
    model = transformers.AutoModelForCausalLM.from_pretrained(case["folder"], dtype=torch.float32)
    model.generation_config.eos_token_id = case["stop_ids"]  # every token that holds a newline, too
    verifier, seen = Verifier(case["verifier"], case["task"]), {}

    def reward(completion_ids: list[list[int]], record: list[str], **_: Any) -> list[float]:
        found = verifier.ask([[ids, json.loads(r)] for ids, r in zip(completion_ids, record, strict=True)])
        lengths = [len(ids) for ids in completion_ids]
        seen.update(reward=sum(found) / len(found), length=sum(lengths) / len(lengths))
        return found

    total, group = case["prompts"] * case["group"], case["group"]
    settings = trl.GRPOConfig(
        output_dir=str(Path(case["out"]) / "trainer"),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        per_device_train_batch_size=min(case["rows"], total),
        gradient_accumulation_steps=-(-total // case["rows"]),
        num_generations=group,
        max_completion_length=case["new"],
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        cache_implementation=case["cache"] or None,
        beta=0.0,
        loss_type="dr_grpo",
        scale_rewards="none",
        learning_rate=case["learning_rate"],
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=case["warmup"],
        adam_beta1=case["b1"],
        adam_beta2=case["b2"],
        adam_epsilon=case["eps"],
        max_grad_norm=case["clip_norm"],
        weight_decay=0.0,
        max_steps=case["steps"],
        shuffle_dataset=False,
        save_strategy="no",
        logging_steps=1_000_000,
        report_to="none",
        disable_tqdm=True,
        seed=case["seed"],
    )
    data = datasets.Dataset.from_dict(
        {"prompt": [row["prompt"] for row in rows], "record": [json.dumps(row["record"]) for row in rows]}
    )
    tell = lambda line: print(json.dumps(line), file=answers, flush=True)
    tell(
        {
            "versions": {
                name: m.__version__ for name, m in (("torch", torch), ("transformers", transformers), ("trl", trl))
            }
        }
    )
    trl.GRPOTrainer(
        model=model,
        args=settings,
        reward_funcs=reward,
        train_dataset=data,
        processing_class=tokenizer,
        callbacks=[Watch(case, tell, seen)],
    ).train()


if __name__ == "__main__":
    main()
