"""Prints the scalars and hyperparameters of the runs in a folder, as TensorBoard reads them.

    python read_events.py FOLDER

The output is JSON: {run: {"scalars": {tag: [[step, value], ...]}, "hyperparameters": {name: value} or null, "status":
text or null, "experiment": null or {"hyperparameters": {name: type}, "metrics": [tag, ...]}}}. A value has all digits of
its f64, into which an f32 is converted exactly; the strings "NaN", "Infinity" and "-Infinity" stand for what JSON does not have.

Needs `pip install tensorboard`.
"""

import argparse
import json
import math

from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_SCALAR
from tensorboard.plugins.hparams import api_pb2, metadata as hparams
from tensorboard.plugins.scalar import metadata as scalars
from tensorboard.util import tensor_util


def read(folder):
    """The runs in a folder, with floats as they are."""
    # TensorBoard keeps a sample of the scalars, unless the sample is of size 0.
    multiplexer = EventMultiplexer(tensor_size_guidance={scalars.PLUGIN_NAME: 0})
    multiplexer.AddRunsFromDirectory(folder)
    multiplexer.Reload()
    return {run: read_run(multiplexer, run) for run in sorted(multiplexer.Runs())}


def read_run(multiplexer, run):
    accumulator = multiplexer.GetAccumulator(run)
    content = contents(accumulator, hparams.PLUGIN_NAME)
    found = {
        "scalars": {tag: read_scalar(accumulator, tag) for tag in sorted(contents(accumulator, scalars.PLUGIN_NAME))},
        "hyperparameters": None,
        "status": None,
        "experiment": None,
    }
    if hparams.SESSION_START_INFO_TAG in content:
        start = hparams.parse_session_start_info_plugin_data(content[hparams.SESSION_START_INFO_TAG])
        found["hyperparameters"] = {
            name: getattr(value, value.WhichOneof("kind")) for name, value in sorted(start.hparams.items())
        }
    if hparams.SESSION_END_INFO_TAG in content:
        end = hparams.parse_session_end_info_plugin_data(content[hparams.SESSION_END_INFO_TAG])
        found["status"] = api_pb2.Status.Name(end.status)
    if hparams.EXPERIMENT_TAG in content:
        experiment = hparams.parse_experiment_plugin_data(content[hparams.EXPERIMENT_TAG])
        found["experiment"] = {
            "hyperparameters": {info.name: api_pb2.DataType.Name(info.type) for info in experiment.hparam_infos},
            "metrics": [info.name.tag for info in experiment.metric_infos],
        }
    return found


def contents(accumulator, plugin):
    """What a plugin stores for each of its tags."""
    try:
        return accumulator.PluginTagToContent(plugin)
    except KeyError:
        return {}


def read_scalar(accumulator, tag):
    data_class = accumulator.SummaryMetadata(tag).data_class
    assert data_class == DATA_CLASS_SCALAR, f"{tag!r} has the data class {data_class}"
    points = [(event.step, tensor_util.make_ndarray(event.tensor_proto)) for event in accumulator.Tensors(tag)]
    for _, value in points:
        assert value.dtype in ("float32", "float64") and value.shape == (), f"{tag!r} has a value of {value.dtype}, {value.shape}"
    return [[step, value.item()] for step, value in points]


def to_json(value):
    """The value, with strings for the floats that JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: to_json(value) for key, value in value.items()}
    if isinstance(value, list):
        return [to_json(value) for value in value]
    return value


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Prints scalars and hyperparameters as TensorBoard reads them.")
    parser.add_argument("folder", help="a folder whose sub-folders are runs")
    print(json.dumps(to_json(read(parser.parse_args().folder)), allow_nan=False))
