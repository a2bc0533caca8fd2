"""Answers with random values of the model's size, drawn once a process (stock Flower starts one a message)."""

from __future__ import annotations

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Answer at once."""
    del context
    model = message.content.array_records["arrays"].to_numpy_ndarrays()[0]
    update = np.random.default_rng().standard_normal(model.size, np.float32)
    records = RecordDict({"arrays": ArrayRecord([update]), "metrics": MetricRecord({"num-examples": 1})})
    return Message(records, reply_to=message)
