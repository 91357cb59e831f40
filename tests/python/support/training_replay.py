"""The training loop of merganser, reimplemented in transformers and torch.

It takes only the order of the examples (batch_order) from merganser, so all numbers
can be compared: losses, learning rates, gradient norms, Fishers.
"""

import json
import math

import torch
from merganser._C import batch_order
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Trainer,
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
)

SCHEDULES = {
    "constant": lambda optimizer, warmup, total: get_constant_schedule_with_warmup(
        optimizer, warmup
    ),
    "linear": get_linear_schedule_with_warmup,
    "cosine": get_cosine_schedule_with_warmup,
}


class Replay:
    def __init__(
        self,
        model,
        train,
        *,
        epochs=1,
        lr=2e-5,
        batch_size=32,
        accumulate=1,
        max_length=24,
        seed=0,
        scheduler="linear",
        warmup=0.06,
        weight_decay=0.01,
        clip=1.0,
        dtype=torch.float32,
        num_labels=None,
        state=None,
    ):
        options = {} if num_labels is None else {"num_labels": num_labels}
        self.model = AutoModelForSequenceClassification.from_pretrained(
            model, **options
        )
        if state is not None:
            self.model.load_state_dict(state)
        # Equal to training mode, as there is no dropout.
        self.model.to(dtype).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.max_length = max_length
        with open(train) as lines:
            examples = [json.loads(line) for line in lines]
        self.texts = [e["text"] for e in examples]
        self.labels = torch.tensor([e["label"] for e in examples])
        self.steps = self._plan(epochs, batch_size, accumulate, seed)
        of_epoch = math.ceil(math.ceil(len(examples) / batch_size) / accumulate)
        self.window = max(0, len(self.steps) - of_epoch)
        self.clip = clip
        self.optimizer = self._optimizer(lr, weight_decay)
        if warmup < 1:
            warmup = math.ceil(warmup * len(self.steps))
        self.scheduler = SCHEDULES[scheduler](
            self.optimizer, int(warmup), len(self.steps)
        )

    def _plan(self, epochs, batch_size, accumulate, seed):
        """Pairs (epoch from 1, batches of a step) for the whole run."""
        ids = self.tokenizer(
            self.texts, truncation=True, max_length=self.max_length
        ).input_ids
        lengths = [len(i) for i in ids]
        steps = []
        for epoch in range(math.ceil(epochs)):
            order = batch_order(lengths, batch_size, seed, epoch)
            of_epoch = [
                (epoch + 1, order[i : i + accumulate])
                for i in range(0, len(order), accumulate)
            ]
            steps += of_epoch
        return steps[: math.ceil(epochs * len(of_epoch))]

    def _optimizer(self, lr, weight_decay):
        decayed = set(Trainer.get_decay_parameter_names(None, self.model))
        groups = [
            {
                "params": [
                    p
                    for name, p in self.model.named_parameters()
                    if (name in decayed) == decays
                ],
                "weight_decay": weight_decay if decays else 0.0,
            }
            for decays in (True, False)
        ]
        return torch.optim.AdamW(groups, lr=lr)

    def logits(self, examples):
        inputs = self.tokenizer(
            [self.texts[i] for i in examples],
            truncation=True,
            max_length=self.max_length,
            padding=True,
            return_tensors="pt",
        )
        return self.model(**inputs).logits

    def gradients(self):
        return {name: p.grad for name, p in self.model.named_parameters()}

    def run(self, before_step=None, after_backward=None):
        """One dict of numbers per step, as in metrics.jsonl."""
        metrics = []
        for index, (epoch, batches) in enumerate(self.steps):
            examples = sum(batches, [])
            if before_step:
                before_step(index, epoch, batches)
            self.optimizer.zero_grad(set_to_none=False)
            # One batch with all examples of the step, for any `accumulate`.
            loss = cross_entropy(self.logits(examples), self.labels[examples])
            loss.backward()
            if after_backward:
                after_backward(index, examples)
            norm = torch.nn.utils.get_total_norm(
                [p.grad for p in self.model.parameters()]
            )
            if self.clip:
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
            metrics.append(
                {
                    "epoch": epoch,
                    "step": index + 1,
                    "examples": len(examples),
                    "loss": loss.item(),
                    "learning_rate": self.scheduler.get_last_lr()[0],
                    "gradient_norm": norm.item(),
                }
            )
            self.optimizer.step()
            self.scheduler.step()
        return metrics
