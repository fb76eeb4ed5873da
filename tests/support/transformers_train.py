"""A training script as users of Hugging Face Trainer write it; it knows nothing of this project.

A tiny model made in code, checkpoints by Trainer itself, and on SIGTERM the usual few lines:
save, stop, and end as if all were done.
"""

import argparse
import signal
import time
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint


class Words(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __len__(self) -> int:
        return 1000

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        time.sleep(self._seconds)
        words = torch.arange(index, index + 8) % 32
        return {"input_ids": words, "labels": words}


class StopOnSigterm(TrainerCallback):  # type: ignore[misc]
    def __init__(self) -> None:
        self._told = False
        signal.signal(signal.SIGTERM, self._hear)

    def _hear(self, *_: Any) -> None:
        self._told = True

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._told:
            control.should_save = True
            control.should_training_stop = True


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", required=True)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--step-seconds", type=float, default=0.4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(1)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=32, n_positions=8, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
        )
    )
    arguments = TrainingArguments(
        output_dir=options.output,
        max_steps=options.steps,
        per_device_train_batch_size=1,
        save_steps=5,
        save_total_limit=2,
        logging_steps=5,
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=Words(options.step_seconds),
        callbacks=[StopOnSigterm()],
    )
    resume = get_last_checkpoint(options.output)
    print(f"resuming {resume}", flush=True)
    trainer.train(resume_from_checkpoint=resume)
    print(f"ended at step {trainer.state.global_step}", flush=True)


if __name__ == "__main__":
    main()
