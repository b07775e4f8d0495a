"""The JSON of requests and responses, as described in the server's OpenAPI document."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class ClassProbability(BaseModel):
    """A class and its probability."""

    name: str
    probability: float


class LevelProbability(BaseModel):
    """The most probable group of classes at a level: the class itself, the model or the make."""

    level: str
    name: str
    probability: float


class BoxPixels(BaseModel):
    """A rectangle in pixels of the upright image; right and bottom are exclusive."""

    left: int
    top: int
    right: int
    bottom: int


class CropOutcome(BaseModel):
    """What the image was cropped to: the box of the vehicle, or the whole image where there is none."""

    outcome: str
    box: BoxPixels | None
    vehicle: str | None
    score: float | None
    candidates: int
    number: int | None = Field(description="With `vehicles`: which one this is, from 1, the largest.")


class ExplanationMaps(BaseModel):
    """Where the network sees its answer: what each place adds to a logit, in rows from the top."""

    predicted: str
    rival: str = Field(description="The second most probable class.")
    box: BoxPixels | None = Field(description="What of the image the maps cover, that is the crop with its margin.")
    for_answer: list[list[float]] = Field(description="For the predicted class, compared with the mean of all classes.")
    against_rival: list[list[float]] = Field(description="For the predicted class, compared with the rival.")


class VehicleAnswer(BaseModel):
    """The answer for one vehicle, or for an image as a whole."""

    answer: LevelProbability | None = Field(
        None,
        description="With `confidence`: what can be said with that accuracy; `unknown` where that is nothing.",
    )
    classes: list[ClassProbability] = Field([], description="The most probable classes, best first.")
    levels: list[LevelProbability] = Field([], description="The best group at each level, finest first.")
    crop: CropOutcome | None = Field(None, description="Null where images are not cropped.")
    explanation: ExplanationMaps | None = Field(None, description="With `explain`.")


class ImageAnswer(VehicleAnswer):
    """The answer for one image; where it cannot be read, only `name` and `problem`, with `vehicles` also these."""

    name: str
    problem: str | None = Field(description="Why the image cannot be read; null where it can.")
    vehicles: list[VehicleAnswer] | None = Field(
        None, description="With `vehicles`, in place of the rest: each one's answer, the largest first; may be empty."
    )
    outcome: str | None = Field(
        None, description="Where `vehicles` is empty: `no vehicle`, or how many are too small, as `whichcar predict`."
    )


class ModelName(BaseModel):
    """The model that answered."""

    name: str
    sha256: str


class PredictAnswer(BaseModel):
    """The answer to POST /predict: one entry an image, in order."""

    model: ModelName
    seconds: float = Field(description="From the request's arrival to its answer.")
    images: list[ImageAnswer]


class Problem(BaseModel):
    """Why a request is not answered, in one sentence and in one or two words for programs."""

    error: str
    reason: str


class InferInput(BaseModel):
    """A tensor of the Open Inference Protocol."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any] | None = None
    parameters: dict[str, Any] = {}


class InferRequest(BaseModel):
    """A request of the Open Inference Protocol, version 2."""

    id: str = ""
    inputs: list[InferInput]
    parameters: dict[str, Any] = {}
    outputs: list[dict[str, Any]] = []


class InferOutput(BaseModel):
    """The probabilities of all classes, (images, classes)."""

    name: Literal["probabilities"] = "probabilities"
    shape: list[int]
    datatype: Literal["FP32"] = "FP32"
    data: list[float]


class InferAnswer(BaseModel):
    """An answer of the Open Inference Protocol."""

    model_name: str
    model_version: str
    id: str
    outputs: list[InferOutput]
