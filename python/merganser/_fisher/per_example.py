"""Per-example gradients of a model's parameters, as the factors of their uses."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .._C import Error, InputError
from .batches import Batch
from .caller import warn
from .closeness import check_close, close
from .model_state import trainable_parameters
from .passes import Passes
from .rules import Layout, NotPerExample
from .uses import Form, Use, can_join, form_of
from .watch import Call, Place

# Number of examples in the probe of a new graph.
_FEW = 3


class _Probe(NamedTuple):
    outputs: Tensor  # of the few examples
    layout: dict[str, bool]
    problems: dict[str, str]  # parameters to compute with single examples: reasons


class PerExampleUses:
    """Finds the gradient of v_i . outputs_i for every example and trainable parameter.

    A derived class takes the gradients as uses: the inputs and output gradients of the
    operations that use a parameter (watch.py). A parameter with any other use takes a
    backward pass per example, with a warning (or is refused: `unsupported="error"`). So
    does one whose gradient's rows do not correspond to the examples of the batch: the
    gradient of one example must not reach another's rows. A probe with three examples
    finds out, for every new graph of the model.
    """

    # True if the uses of a parameter must come together, and be of forms that join.
    joins = True
    # True if all gradients of an example must come together for each direction.
    by_direction = False

    def __init__(
        self,
        model: nn.Module,
        unsupported: str = "per_example",
        passes: Passes | None = None,
    ):
        """passes: over the model; None: this process's own."""
        self._passes = passes or Passes(trainable_parameters(model))
        self._watch = self._passes.watch
        self._refuse = unsupported == "error"
        self._by_example = self._passes.without_rule
        self._one_by_one = False  # takes single examples
        # Key: (several examples?, graph). Value: parameters whose rows a probe found to
        # be the examples', and whether these are minor (rules.Layout).
        self._layouts: dict[tuple[bool, int], dict[str, bool]] = {}
        self._layout: dict[str, bool] = {}  # of the current batch
        # Rows per example in the probe of the current batch.
        self._lengths: dict[str, set[int]] = defaultdict(set)
        self._pending: dict[Place, list[Use]] = defaultdict(list)
        self._unproven: dict[str, str] = {}

    # Methods of derived classes

    def _add_uses(self, place: Place, uses: list[Use]) -> None:
        """Takes gradients of the current direction."""
        raise NotImplementedError

    def _add_gradient(self, name: str, gradient: Tensor) -> None:
        """Takes the gradient of a single example."""
        raise NotImplementedError

    def _begin(self, batch: Batch) -> None:
        """Called before the gradients of a batch or of a part of one."""

    def _begin_direction(self, number: int) -> None:
        """Called before the gradients of a direction."""

    def _end(self, batch: Batch) -> None:
        """Called after all gradients of a batch; not if they are found again."""

    def add(
        self,
        outputs_of: Callable[[Batch], Tensor],
        batch: Batch,
        directions_of: Callable[[Tensor, Batch], Iterable[Tensor]],
    ) -> None:
        """Adds a batch: one forward pass, and a backward pass per direction.

        outputs_of: runs the model, returns (B, ...). directions_of: returns the v, of
        the outputs' shape.
        """
        singles = self._one_by_one or (self.by_direction and bool(self._by_example))
        parts = [batch]
        if singles:
            parts = [batch.rows(i, i + 1) for i in range(batch.size)]
        for part in parts:
            outputs = self._outputs(outputs_of, part)
            again = self.by_direction and bool(self._by_example) and part.size > 1
            if outputs is None or again:
                self.add(outputs_of, batch, directions_of)  # one by one
                return
            self._begin(part)
            for number, (v, last) in enumerate(with_last(directions_of(outputs, part))):
                self._begin_direction(number)
                self._passes.backward(outputs, v, not last, self._accumulate)
                # Adds parameters with uses that the backward pass did not reach.
                for place in list(self._pending):
                    self._add(place)
            self._leave_to_examples(self._unproven)
            if self.by_direction and self._by_example and part.size > 1:
                self._release()
                self.add(outputs_of, batch, directions_of)  # one by one
                return
            if self._by_example:
                self._add_examples(outputs_of, part, directions_of)
            self._end(part)
            self._release()

    def _release(self) -> None:
        """Forgets the batch."""
        self._watch.start(1)
        self._lengths.clear()
        self._unproven.clear()

    # The forward pass

    def _outputs(self, outputs_of, batch: Batch) -> Tensor | None:
        """Outputs of a batch, ready for backward passes; None: take single examples."""
        probe: _Probe | InputError | None = None
        if not self._layouts:  # the first graph is new: probed before its whole pass
            try:
                probe = self._probe_graph(outputs_of, batch)
            except InputError as error:
                probe = error  # unless the model moves rows, which explains it
        outputs = self._passes.watched(outputs_of, batch)
        graph = self._watch.graph
        if batch.size > 1 and graph.moves_rows:
            self._take_one_by_one(graph.moves_rows)
            return None
        if (batch.size > 1, graph.signature) not in self._layouts:
            if isinstance(probe, InputError):
                raise probe
            again = probe is None or bool(probe.problems)
            if again:
                outputs = None  # frees memory
            probe = probe or self._probe_graph(outputs_of, batch)
            self._leave_to_examples(probe.problems)
            if again:
                outputs = self._passes.watched(outputs_of, batch)
            assert outputs is not None
            check_close(probe.outputs, outputs[: len(probe.outputs)])
            self._layouts[batch.size > 1, self._watch.graph.signature] = probe.layout
        assert outputs is not None
        if not outputs.requires_grad:
            raise InputError("no trainable parameter of the model reaches its output")
        self._layout = self._layouts[batch.size > 1, self._watch.graph.signature]
        self._leave_to_examples(self._watch.uses_without_rule())
        return outputs

    def _probe_graph(self, outputs_of, batch: Batch) -> "_Probe":
        """Finds with a few examples which parameters have rules, and their layouts."""
        few = batch.rows(0, min(_FEW, batch.size))
        outputs = self._passes.watched(outputs_of, few)
        if self._watch.shared_now:
            plain = self._passes.unwatched(outputs_of, few)
            if not close(plain, outputs):
                self._watch.share = False
                outputs = self._passes.watched(outputs_of, few)
        if few.size > 1:
            singles = [
                self._passes.unwatched(outputs_of, few.rows(i, i + 1))
                for i in range(few.size)
            ]
            check_close(torch.cat(singles), outputs)
        layout, problems = {}, {}
        if outputs.requires_grad:
            without_rule = self._watch.uses_without_rule()
            layout, misfits = self._probe_layouts(outputs)
            problems = misfits | without_rule
        return _Probe(outputs.detach(), layout, problems)

    # Parameters and models without a rule

    def _take_one_by_one(self, mover: str) -> None:
        why = f"the model moves or chooses rows of its batches ({mover})"
        if self._refuse:
            raise NotImplementedError(f"{why}: use batches of one example")
        warn(f"{why}, so every single example takes a forward and a backward pass")
        self._one_by_one = True

    def _leave_to_examples(self, problems: dict[str, str]) -> None:
        new = {n: why for n, why in problems.items() if n not in self._by_example}
        if not new:
            return
        listed = ", ".join(f"{name} ({why})" for name, why in new.items())
        if self._refuse:
            raise NotImplementedError(
                f"no rule gives the per-example gradients of {listed}"
            )
        warn(
            "no rule gives the per-example gradients of these parameters, so they "
            "take a forward and a backward pass for every single example: " + listed
        )
        self._by_example.update(new)

    def _add_examples(self, outputs_of, batch: Batch, directions_of) -> None:
        for i in range(batch.size):
            example = batch.rows(i, i + 1)
            outputs = self._passes.of_example(outputs_of, example)
            directions = with_last(directions_of(outputs, example))
            for number, (v, last) in enumerate(directions):
                self._begin_direction(number)
                gradients = self._passes.gradients(outputs, v, not last)
                for name, gradient in gradients.items():
                    self._add_gradient(name, gradient.contiguous())

    # The backward pass

    def _probe_layouts(self, outputs: Tensor) -> tuple[dict[str, bool], dict[str, str]]:
        """Finds the layouts of the parameters in use.

        The gradient of one example must not reach another example's rows; it does
        where dimensions fit by coincidence only. Returns the layouts that pass, and
        the parameters for which none does, with the reason.
        """
        size = self._watch.batch_size
        layouts = [Layout(size, minor) for minor in (False, True)]
        fits: dict[str, set[bool]] = {}
        forms: dict[Place, set[Form]] = defaultdict(set)
        seen: set[str] = set()

        def look(call: Call, grad: Tensor) -> None:
            for number, place in call.places.items():
                right = set()
                for layout in layouts:
                    try:
                        use = call.use(number, layout, grad)
                    except NotPerExample:
                        continue
                    others = use.grad[:example], use.grad[example + 1 :]
                    if not any(x.any() for x in others):
                        right.add(layout.minor)
                        self._lengths[place.name].add(use.grad.shape[1])
                        forms[place].add(form_of(use))
                if grad.any():
                    seen.add(place.name)
                fits[place.name] = fits.get(place.name, right) & right

        for example in range(size):
            if example == 2 and seen == fits.keys():
                break  # rows that two of three examples keep are also the third's
            v = torch.zeros_like(outputs, requires_grad=False)
            v[example] = torch.arange(1.0, v[0].numel() + 1).cos().view_as(v[0])
            self._passes.backward(outputs, v, True, look)
        found, problems = {}, {}
        if self.joins:
            for place, its in forms.items():
                if not can_join(its):
                    problems[place.name] = "has uses that cannot be combined"
        for name, right in fits.items():
            if name in problems:
                continue
            if not right:
                problems[name] = (
                    "has gradients whose rows are not the examples of the batch"
                )
            elif name in seen or size == 1:
                found[name] = False not in right
                if size > 1:
                    self._watch.proven.add(name)
        return found, problems

    def _accumulate(self, call: Call, grad: Tensor) -> None:
        if not call.is_unchanged():
            raise Error("an input of the model's layers changed in the backward pass")
        with torch.autocast(grad.device.type, enabled=False):
            for number, place in call.places.items():
                if place.name in self._by_example:
                    continue
                minor = self._layout.get(place.name)
                if minor is None:
                    # No gradient reached it in the probe; zeros add nothing.
                    if grad.any():
                        self._unproven[place.name] = (
                            "had no gradient in the probe of layouts"
                        )
                    continue
                try:
                    use = call.use(number, Layout(self._watch.batch_size, minor), grad)
                except NotPerExample:
                    use = None
                # The probe had the padding of the whole batch.
                lengths = self._lengths.get(place.name)
                if use is None or (lengths and use.grad.shape[1] not in lengths):
                    raise Error(
                        f"{place.name} is not used equally often by every example, as "
                        "with routed tokens: use batches of one example"
                    )
                self._pending[place].append(use)
                complete = len(self._pending[place]) == self._watch.counts[place]
                if complete or not self.joins:
                    self._add(place)

    def _add(self, place: Place) -> None:
        uses = self._pending.pop(place)
        if self.joins and not can_join({form_of(use) for use in uses}):
            raise Error(f"{place.name} is not used in the same way in every batch")
        self._add_uses(place, uses)


def with_last(items: Iterable) -> Iterator[tuple]:
    """Yields each item, and whether it is the last."""
    items = iter(items)
    item = next(items, None)
    while item is not None:
        following = next(items, None)
        yield item, following is None
        item = following
