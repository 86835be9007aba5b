"""How the processes of one training share a batch, and what each of them validates."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler, Sampler

from rim.config import StageConfig
from rim.core.feedback import Feedback
from rim.train.checkpoints import SafeTrainer
from rim.train.cost import TrainingCost, micro_batch_counts
from rim.train.order import Shuffled
from rim.train.processes import counted
from rim.train.sharded_weights import embedding_with_head


class SharedTrainer(SafeTrainer):
    """A trainer whose batch several processes share. One process asks nobody."""

    stage: StageConfig
    cost: TrainingCost
    feedback: Feedback | None
    _num_examples: int
    _collecting = False
    _order: Shuffled | None = None

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler | None:
        sampler = super()._get_train_sampler(train_dataset)
        if type(sampler) is not RandomSampler:  # a strategy of `trainer` settings
            return sampler
        seed = self.args.data_seed
        self._order = Shuffled(len(sampler), torch.random.initial_seed() if seed is None else seed)
        return self._order

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        with embedding_with_head(self):
            return super()._prepare_for_training(*args, **kwargs)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        # accelerate does not find the order behind a loader that processes share and a resumed run
        # skips into: it would go on in the first epoch's.
        if self._order is not None:
            self._order.set_epoch(kwargs["epoch"])
        super()._run_epoch(*args, **kwargs)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        self._collecting = True
        try:
            return super().get_batch_samples(*args, **kwargs)
        finally:
            self._collecting = False

    def _get_num_items_in_batch(
        self, batch_samples: list[dict[str, Tensor]], device: torch.device
    ) -> Any:
        """Examples of the accumulated batch over all processes (the base class counts tokens)."""
        # A batch of validation every process has as a whole.
        if self.args.world_size == 1 or not self._collecting:
            return sum(len(batch["num_readouts"]) for batch in batch_samples)
        step, rank = self.state.global_step, self.args.process_index
        real = list(counted(batch_samples, step, self._num_examples, self.stage, rank))
        for batch, counted_B in zip(batch_samples, real, strict=True):
            if not counted_B.all():
                batch["counted_B"] = counted_B.to(device)
        # A filled-up batch is paid for like any other; its examples are no more than there are.
        counts = [micro_batch_counts(batch, self.feedback) for batch in batch_samples]
        sums = torch.tensor([sum(column) for column in zip(*counts, strict=True)])
        sums[0] = sum(int(counted_B.sum()) for counted_B in real)
        examples, tokens, target_tokens = self._over_processes(sums.to(device)).tolist()
        self.cost.add(examples, tokens, target_tokens)
        return torch.tensor(examples, device=device)

    def _over_processes(self, sums: Tensor) -> Tensor:
        """The same sums over all processes."""
        if self.args.world_size == 1:
            return sums
        gathered: Any = self.accelerator.gather(sums[None])
        return gathered.sum(0)

    def _most(self, number: int) -> int:
        """Return the largest of the processes' numbers."""
        if self.args.world_size == 1:
            return number
        gathered: Any = self.accelerator.gather(torch.tensor([number], device=self.args.device))
        return int(gathered.max())

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """Give every process the whole validation set, in order."""
        if self.args.world_size == 1:
            return super().get_eval_dataloader(eval_dataset)
        dataset: Any = self.eval_dataset if eval_dataset is None else eval_dataset
        return DataLoader(
            dataset, batch_size=self.args.eval_batch_size, collate_fn=self.data_collator
        )

    def evaluation_loop(self, dataloader: DataLoader, *args: Any, **kwargs: Any) -> Any:
        """What a process validated alone is its own: nothing is gathered.

        accelerate would gather, and cut what it gathered to what the *training* data has left over
        at an epoch's end. That changes the rounding of the mean loss, by the step at which a run
        was resumed, and leaves the last batch of validation a weight that it does not have.
        """
        if self.args.world_size > 1:
            left = len(self.eval_dataset)  # type: ignore[arg-type]

            def own(losses: Tensor) -> Tensor:
                """A batch's mean once for each of its examples; the last batch has fewer."""
                nonlocal left
                kept = losses[:left]
                left -= len(kept)
                return kept

            self.gather_function = own  # transformers sets its own again after the loop
        return super().evaluation_loop(dataloader, *args, **kwargs)
