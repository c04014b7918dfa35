"""The worker of transformers (sampler, update) and of TRL (step), in the environment of ``make peers``.

Sampling with a static cache, which is the faster one on a CPU. The update is a policy gradient on padded rows with AdamW, 32 rows at a
time. The step is TRL's GRPOTrainer as it is, without its gradient checkpointing, which costs time.
"""

import itertools
from typing import Any

import torch
import transformers

from benchmarks.peers.json_worker import Run, run_by_steps, serve

ROWS = 32  # of a micro-batch


def prepare(case: dict[str, Any]) -> Run:
    torch.set_num_threads(case["cores"])
    dtype = getattr(torch, case["dtype"])
    model = transformers.AutoModelForCausalLM.from_pretrained(case["folder"], dtype=dtype)
    return {"sampler": prepare_sampler, "update": prepare_update, "step": prepare_step}[case["work"]](case, model)


def prepare_sampler(case: dict[str, Any], model: Any) -> Run:
    prompt = torch.tensor(case["prompt_ids"]).repeat_interleave(case["group"], 0)
    how = dict(max_new_tokens=case["new"], do_sample=True, top_k=0, top_p=1.0, cache_implementation="static")
    ids = dict(eos_token_id=0, pad_token_id=case["vocab"] - 1)

    def run(seed: int) -> int:
        torch.manual_seed(seed)
        with torch.inference_mode():
            out = model.generate(prompt, attention_mask=torch.ones_like(prompt), **how, **ids)
        return int((out[:, prompt.shape[1] :] != case["vocab"] - 1).sum())

    return run


def prepare_update(case: dict[str, Any], model: Any) -> Run:
    prompt = torch.tensor(case["prompt_ids"]).repeat_interleave(case["group"], 0)
    lengths = torch.tensor([len(x) for x in case["responses"]])
    longest = int(lengths.max())  # as TRL pads: to the longest response of the batch
    pad = case["vocab"] - 1
    response = torch.tensor([x + [pad] * (longest - len(x)) for x in case["responses"]])
    tokens = torch.cat([prompt, response], 1)
    mask = torch.arange(longest) < lengths[:, None]
    seen = torch.cat([torch.ones_like(prompt), mask.long()], 1)
    reward = torch.tensor(case["rewards"]).reshape(case["prompts"], case["group"])
    advantage = (reward - reward.mean(1, keepdim=True)).reshape(-1, 1)
    weight = advantage * mask / (case["new"] * len(tokens))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)

    def run(seed: int) -> int:
        optimizer.zero_grad()
        for part in torch.arange(len(tokens)).split(ROWS):
            out = model(tokens[part], attention_mask=seen[part], use_cache=False, logits_to_keep=longest + 1)
            logits = out.logits[:, :-1]
            logprobs = -torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), response[part].flatten(), reduction="none"
            )
            ratio = torch.exp(logprobs - logprobs.detach()).view(len(part), longest)
            (-(ratio * weight[part]).sum()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return int(lengths.sum())

    return run


def prepare_step(case: dict[str, Any], model: Any) -> Run:
    import datasets  # slow to import, and only TRL needs these
    import trl

    tokenizer = transformers.AutoTokenizer.from_pretrained(case["folder"])
    rows = case["prompts"] * case["group"]
    tokens = []

    def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
        tokens.append(sum(map(len, completion_ids)))
        return case["rewards"][: len(completion_ids)]

    class Pause(transformers.TrainerCallback):
        def __init__(self, pause: Any):
            self.pause = pause

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.pause()

    settings = trl.GRPOConfig(
        output_dir=case["folder"] + "_trl",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        per_device_train_batch_size=min(rows, ROWS),
        gradient_accumulation_steps=-(-rows // ROWS),
        num_generations=case["group"],
        max_completion_length=case["new"],
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        cache_implementation="static",
        beta=0.0,
        loss_type="dr_grpo",
        scale_rewards="none",
        learning_rate=1e-6,
        lr_scheduler_type="constant",
        max_steps=1_000_000,
        shuffle_dataset=False,
        save_strategy="no",
        logging_steps=1_000_000,
        report_to="none",
        disable_tqdm=True,
        seed=0,
    )
    data = datasets.Dataset.from_dict({"prompt": list(itertools.islice(itertools.cycle(case["prompt_texts"]), 4096))})

    def loop(pause: Any) -> None:
        trl.GRPOTrainer(
            model=model,
            args=settings,
            reward_funcs=reward,
            train_dataset=data,
            processing_class=tokenizer,
            callbacks=[Pause(pause)],
        ).train()

    return run_by_steps(loop, tokens)


if __name__ == "__main__":
    serve(prepare, ("torch", "transformers", "trl"))
