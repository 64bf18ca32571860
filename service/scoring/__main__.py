"""Score a JSON-lines file: ``python -m service.scoring MODEL IN OUT``.

Each line of IN is one instance, as in the ``instances`` of a request. OUT has one line per line of IN, in order: the
prediction, or ``{"error": ...}`` with the reason. OUT appears only when it is whole.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec
import orjson

from models.bodies import from_decoding
from models.errors import HttpError, InvalidRequest, LecternError, RunnerFailed
from models.keys import Keys, keys_of
from models.predictor import Predictor, open_predictor
from models.session import open_artifact
from service.catalog import find_models
from service.settings import settings


def score_lines(predictor: Predictor, lines: Iterator[bytes], size: int = 256) -> Iterator[dict[str, Any]]:
    """One answer per line, in order; a bad line costs only itself."""
    decoder, keys = msgspec.json.Decoder(predictor.card.instance), keys_of(predictor.card.instance)
    chunk: list[Any] = []
    for line in lines:
        chunk.append(_sample(predictor, decoder, keys, line))
        if len(chunk) == size:
            yield from _score(predictor, chunk)
            chunk = []
    yield from _score(predictor, chunk)


def _sample(predictor: Predictor, decoder: "msgspec.json.Decoder[Any]", keys: Keys, line: bytes) -> Any:
    """The encoded instance, or what is wrong with the line."""
    try:
        instance = decoder.decode(line)
        repeated = keys.find_repeated(line, 0)
        if repeated is not None:
            return InvalidRequest("a value makes no sense", [repeated])
        return predictor.encode([instance])[0]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return from_decoding(error)
    except InvalidRequest as error:
        return error


def _score(predictor: Predictor, chunk: list[Any]) -> Iterator[dict[str, Any]]:
    good = [sample for sample in chunk if not isinstance(sample, HttpError)]
    answers = iter([answer for batch in predictor.batches(good) for answer in _infer(predictor, batch)])
    for sample in chunk:
        answer = sample if isinstance(sample, HttpError) else next(answers)
        yield _as_error(answer) if isinstance(answer, HttpError) else answer


def _infer(predictor: Predictor, batch: list[Any]) -> list[Any]:
    """Predictions, with an error in the place of the samples the model fails on."""
    try:
        return list(predictor.infer(batch))
    except RunnerFailed as error:
        if len(batch) == 1:
            return [error]
        middle = len(batch) // 2
        return _infer(predictor, batch[:middle]) + _infer(predictor, batch[middle:])


def _as_error(error: HttpError) -> dict[str, Any]:
    # A line is one instance: it has no list of instances to be located in.
    places = [fault.loc[2:] if fault.loc[:1] == ("instances",) else fault.loc for fault in error.faults]
    reasons = [{"loc": list(place), "reason": fault.reason} for place, fault in zip(places, error.faults, strict=True)]
    return {"error": {"code": error.code, "reason": str(error), "errors": reasons}}


@click.command(help=__doc__)
@click.argument("model")
@click.argument("source", metavar="IN", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path, dir_okay=False))
def main(model: str, source: Path, target: Path) -> None:
    """The command line."""
    aside = target.with_name(f".{target.name}.part")
    rows = errors = 0
    try:
        served = find_models([model])[0]
        predictor = open_predictor(open_artifact(served.folder, settings().device))
        with source.open("rb") as lines, aside.open("wb") as out:
            for answer in score_lines(predictor, lines):
                rows, errors = rows + 1, errors + ("error" in answer)
                out.write(orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE))
        aside.replace(target)
    except LecternError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        click.echo(f"\nstopped; nothing was written to {target}", err=True)
        sys.exit(130)
    finally:
        aside.unlink(missing_ok=True)
    click.echo(f"{rows} rows, {errors} errors: {target}")


if __name__ == "__main__":
    main()
