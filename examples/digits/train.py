"""Train a small network on handwritten digits, on machines that may vanish at any moment.

Real data, small enough for a laptop, and every piece of state matters: dropout and noise
draw from three random generators, AdamW has moments, the learning rate has a schedule,
the loss scale has a counter, the order of the samples is shuffled. Run it anywhere:

    python train.py --checkpoint runs/digits

and interrupt it, with Ctrl-C, `kill` or `kill -9`, as often as you like.
"""

import spot_trainer as spot  # isort: skip  (first: from here on a notice is heard)

import argparse
import random
import time

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Digits(Dataset):
    """1797 images of 8x8 pixels; ships inside scikit-learn."""

    def __init__(self) -> None:
        digits = load_digits()
        self.images = torch.tensor(digits.images / 16.0, dtype=torch.float32)
        self.labels = torch.tensor(digits.target)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int):
        # Augmentation draws from Python's and NumPy's generators, as many real pipelines do.
        image = torch.roll(self.images[index], random.randint(-1, 1), dims=1)
        noise = np.random.standard_normal((8, 8)).astype(np.float32)
        return image + 0.05 * torch.from_numpy(noise), self.labels[index]


class Network(nn.Module):
    """Two convolutions and a classifier, with batch norm and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        )  # fmt: skip
        self.classifier = nn.Sequential(nn.Dropout(0.3), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(images.unsqueeze(1)))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", help="directory, file:// or s3://; in a pod the operator decides")
    parser.add_argument("--interval-seconds", type=float, default=10.0, help="outside a pod")
    parser.add_argument("--step-seconds", type=float, default=0.0, help="slow each step down")
    parser.add_argument("--log-seconds", type=float, default=2.0, help="least time between two step lines")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    random.seed(args.seed)
    np.random.seed(args.seed)
    torch.manual_seed(args.seed)
    # Sums depend on how many threads share them: without these two lines no run equals another.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)

    dataset = Digits()
    sampler = spot.ShuffledSampler(dataset, seed=args.seed)
    loader = DataLoader(dataset, batch_size=args.batch_size, sampler=sampler)
    total_steps = args.epochs * len(loader)

    model = Network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    warmup = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=50)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=max(1, total_steps - 50))
    scheduler = torch.optim.lr_scheduler.SequentialLR(optimizer, [warmup, cosine], milestones=[50])
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=40)

    run = spot.Run(
        checkpoint=args.checkpoint,
        interval_seconds=args.interval_seconds,
        log_seconds=args.log_seconds,
        record_samples=True,
        model=model,
        optimizer=optimizer,
        scheduler=scheduler,
        scaler=scaler,
        sampler=sampler,
    )
    with run:
        for images, labels in run.batches(loader, epochs=args.epochs):
            loss = nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            scheduler.step()
            if args.step_seconds:
                time.sleep(args.step_seconds)
            run.step_done(loss=loss.item(), lr=scheduler.get_last_lr()[0])


if __name__ == "__main__":
    main()
