"""Adds the server's learning rate to every value, as if that were training."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    arrays = message.content.array_records["arrays"].to_numpy_ndarrays()
    step = float(str(message.content.config_records["config"]["lr"]))
    trained = ArrayRecord([array + step for array in arrays])
    metrics = MetricRecord({"num-examples": 7, "loss": 0.5})
    return Message(RecordDict({"arrays": trained, "metrics": metrics}), reply_to=message)
