"""Scores parts of an input: the same instances, through the same predictor, as the service."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from models.artifact.signature import read_keys, trust_only
from models.card import Array
from models.errors import ArtifactMismatch, DataError, HttpError, RunnerFailed
from models.runtime.device import Device
from models.runtime.predictor import Predictor, open_predictor
from models.runtime.session import open_artifact
from service.scoring.inputs.interfaces import PartSpec, RowError, Rows, row_error
from service.scoring.inputs.registry import open_source
from service.scoring.inputs.word_columns import Words
from service.scoring.parts.answers import Answers
from service.scoring.parts.columns import make_layout
from service.scoring.parts.part_writer import EncodedPart
from service.scoring.parts.word_batches import Vocabulary, WordRun
from service.scoring.spec import JobSpec
from service.settings import settings

Begin = Callable[[int], None]
Places = NDArray[np.int64]
# Together they are encoded at less than half the price of one by one.
ENCODED_AT_ONCE = 64
# Workers are processes; threads of Arrow's would only take turns with them.
pa.set_cpu_count(1)
# Its own would give freed memory back to the kernel, which `worker.py` has told the C library's not to.
pa.set_memory_pool(pa.system_memory_pool())


class ModelScorer:
    """A job's model and input, opened once.

    Args:
        spec: The job.
        device: Where to compute.
        folder: Where the model is; without it, it is looked for in the store, which takes a second.
        predictor: In place of the model.

    Raises:
        ArtifactMismatch: If the store's model is not the one the job was begun with.
        DataError: If the input cannot be understood as a whole.
    """

    def __init__(
        self, spec: JobSpec, device: Device, *, folder: Path | None = None, predictor: Predictor | None = None
    ) -> None:
        self.spec = spec
        self.predictor = predictor or _open(spec, device, folder)
        self.source = open_source(spec)
        self.layout = make_layout(self.predictor, self.source.schema, [key for key, _ in spec.keys])

    def score(
        self,
        cut: PartSpec,
        *,
        known: Mapping[int, RowError] | None = None,
        alone: bool = False,
        begin: Begin | None = None,
    ) -> EncodedPart:
        """Score one part.

        Args:
            cut: The part.
            known: Errors of rows, by their place in the part, that are not to be run.
            alone: Whether to run each row by itself.
            begin: Called with each row before it is run alone.

        Raises:
            InputChanged: If the input is no longer what was cut.
            DataError: If the rows take more memory than there is.
        """
        rows = self._read(cut)
        single: dict[int, Any] = dict(known or {})
        if alone:
            for row in [row for row in range(rows.count) if row not in single]:
                if begin is not None:
                    begin(row)
                single |= self._answers(rows, [row])
            answers = Answers(count=rows.count, single=single)
        elif (words := self._words(rows, single)) is not None:
            run = WordRun(self.predictor, *words)
            run.run()
            single |= run.errors
            answers = Answers(count=rows.count, single=single, lists=run.lists())
        else:
            offsets, many = self._many(rows, single)
            missing = range(rows.count) if offsets is None else np.flatnonzero(offsets < 0).tolist()
            single |= self._answers(rows, [row for row in missing if row not in single])
            answers = Answers(count=rows.count, single=single, places=offsets, many=many)
        return EncodedPart(spec=self.spec, cut=cut, source=rows, layout=self.layout, answers=answers)

    def _read(self, cut: PartSpec) -> Rows:
        try:
            return self.source.read(cut)
        except MemoryError as error:
            found = f"rows {cut.first_row + 1} to {cut.first_row + cut.rows} that take more memory than there is"
            raise DataError(self.spec.source, found=found, expected="smaller pieces, or fewer --part-rows") from error

    def _many(self, rows: Rows, known: Mapping[int, Any]) -> tuple[Places | None, dict[str, Array] | None]:
        """Return the answers of all rows that are plain numbers and have no fault, in micro-batches in order."""
        bulk, assets = self.predictor.card.bulk, self.predictor.assets
        numbers = None if bulk is None else rows.numbers(bulk.field)
        if bulk is None or numbers is None:
            return None, None
        is_good = bulk.accept(numbers, assets)
        is_good[[*known]] = False
        chosen = np.flatnonzero(is_good)
        size, wanted = bulk.batch, self.predictor.wanted(explain=False)
        found: list[dict[str, Array]] = []
        done: list[Places] = []
        for start in range(0, len(chosen), size):
            batch = chosen[start : start + size]
            try:
                outputs = self.predictor.run(bulk.feeds(_pick(numbers, batch), assets), wanted)
            except RunnerFailed:
                continue  # which of them, is found one by one
            if all(np.isfinite(values).all() for values in outputs.values()):
                found.append(bulk.answers(outputs, assets))
                done.append(batch)
        if not done:
            return None, None
        offsets = np.full(rows.count, -1)
        order = np.concatenate(done)
        offsets[order] = np.arange(len(order))
        return offsets, {name: np.concatenate([one[name] for one in found]) for name in found[0]}

    def _words(self, rows: Rows, single: dict[int, Any]) -> tuple[Words, Vocabulary] | None:
        """Return the words of all rows, if that is what they have; what is wrong with a row is added to ``single``."""
        bulk = self.predictor.card.word_bulk
        words = None if bulk is None else rows.words(bulk.field)
        if bulk is None or words is None:
            return None
        vocabulary = Vocabulary(self.predictor, words.values)
        is_good = words.have(vocabulary.is_good[vocabulary.numbers]) & (words.lengths <= bulk.most)
        is_good[[*single]] = False
        words = words.only(is_good)
        alone = self._samples(rows, [row for row in words.missing if row not in single], single)
        if alone:
            words = words.with_rows({row: bulk.words(sample) for row, sample in alone.items()})
            vocabulary = Vocabulary(self.predictor, words.values)
        return None if words.are_none else (words, vocabulary)

    def _answers(self, rows: Rows, wanted: Iterable[int]) -> dict[int, Any]:
        """Return each row's prediction or error, in micro-batches of rows of like length."""
        answers: dict[int, Any] = {}
        samples = self._samples(rows, wanted, answers)
        order = sorted(samples, key=lambda row: self.predictor.card.cost(samples[row]))
        found = iter(order)
        for batch in self.predictor.batches([samples[row] for row in order]):
            for answer in self._infer(batch):
                answers[next(found)] = answer
        return answers

    def _samples(self, rows: Rows, wanted: Iterable[int], answers: dict[int, Any]) -> dict[int, Any]:
        """Rows encoded, by row; those that cannot be get their error among the answers."""
        samples: dict[int, Any] = {}
        waiting: dict[int, Any] = {}
        for row in wanted:
            try:
                waiting[row] = rows.instance(row)
            except HttpError as error:
                answers[row] = row_error(error)
                continue
            # What is encoded holds less memory than the file it was decoded from.
            if len(waiting) == ENCODED_AT_ONCE or self.predictor.card.holds_file(waiting[row]):
                samples |= self._encode(waiting, answers)
                waiting.clear()
        return samples | self._encode(waiting, answers)

    def _encode(self, instances: Mapping[int, Any], answers: dict[int, Any]) -> dict[int, Any]:
        """Samples by row; a row that cannot be one gets its error."""
        try:
            return dict(zip(instances, self.predictor.encode([*instances.values()]), strict=True))
        except HttpError as error:
            if len(instances) == 1:
                answers.update(dict.fromkeys(instances, row_error(error)))
                return {}
        samples: dict[int, Any] = {}
        for row, instance in instances.items():  # which of them, is found one by one
            samples |= self._encode({row: instance}, answers)
        return samples

    def _infer(self, batch: list[Any]) -> list[Any]:
        """Predictions, with an error in the place of the samples that the model fails on."""
        try:
            return [*self.predictor.infer(batch)]
        except RunnerFailed as error:
            if len(batch) == 1:
                return [row_error(error)]
            middle = len(batch) // 2
            return self._infer(batch[:middle]) + self._infer(batch[middle:])


def _pick(numbers: NDArray[np.float64], rows: Places) -> NDArray[np.float64]:
    """Return some ascending rows; without a copy where they follow on each other."""
    first, last = int(rows[0]), int(rows[-1]) + 1
    return numbers[first:last] if last - first == len(rows) else numbers[rows]


def _open(spec: JobSpec, device: Device, folder: Path | None) -> Predictor:
    if folder is None:
        from service.store.catalog import find_models

        folder = find_models([spec.model])[0].folder
    elif settings().trusted_keys:
        trust_only(read_keys(settings().trusted_entries))
    session = open_artifact(folder, settings().compute_on(device))
    if (session.manifest.tag, session.manifest.digest) != (spec.model, spec.manifest_digest):
        raise ArtifactMismatch(f"{spec.model}: not the model that the job was begun with")
    return open_predictor(session)
