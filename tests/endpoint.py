"""The endpoint's path, and the pictures of its answers."""

import base64
import io

import httpx
import numpy as np
from PIL import Image

PATH = "/v1/images/generations"


def pictures(answer: httpx.Response) -> list[np.ndarray]:
    assert answer.status_code == 200, answer.text
    files = [base64.b64decode(one["b64_json"]) for one in answer.json()["data"]]
    return [np.asarray(Image.open(io.BytesIO(file)), dtype=int) for file in files]
