"""The JSON of the HTTP interface, as /openapi.json describes it."""

from typing import Annotated, Any

from pydantic import BaseModel, Field

_TASK = "Zk3vVh0cTq6mQ1v3a8rJxw"
_EXAMPLE = "q0fJc2mZr1aB"
_CLASS = {"name": "circle", "examples": 2}


class Error(BaseModel):
    """Any refusal: what was given, what is required, what to do."""

    error: Annotated[str, Field(examples=["there is no task 'abc': GET /tasks lists them"])]


class Name(BaseModel):
    """The name of a task or class: 1 to 80 printable characters; spaces around it are left out."""

    name: Annotated[str, Field(examples=["shapes"])]


class Class(BaseModel):
    """A class and how many examples it has."""

    name: Annotated[str, Field(examples=["circle"])]
    examples: Annotated[int, Field(examples=[2])]


class NewTask(BaseModel):
    """A task; who knows its id can use it."""

    id: Annotated[str, Field(examples=[_TASK])]
    name: Annotated[str, Field(examples=["shapes"])]
    classes: Annotated[list[Class], Field(examples=[[_CLASS]])]


class Task(NewTask):
    """A task with its time of creation, UTC."""

    created: Annotated[str, Field(examples=["2026-01-31T12:00:00+00:00"])]


class Example(BaseModel):
    """An example and its class."""

    id: Annotated[str, Field(examples=[_EXAMPLE])]
    label: Annotated[str, Field(examples=["circle"])]


class Added(BaseModel):
    """What was added, and all classes as they are now."""

    examples: list[Example]
    classes: Annotated[list[Class], Field(examples=[[_CLASS]])]


class Ranked(BaseModel):
    """A class and its probability."""

    label: Annotated[str, Field(examples=["circle"])]
    probability: Annotated[float, Field(examples=[0.97])]


class Prediction(BaseModel):
    """What is said of one image."""

    label: Annotated[
        str | None, Field(description="The most probable class; null: of none of them.", examples=["circle"])
    ]
    unknown: Annotated[bool, Field(description="Whether the image is like no class.", examples=[False])]
    unknown_score: Annotated[
        float | None,
        Field(description="Higher: less like any class. null where nothing was there to calibrate on.", examples=[0.4]),
    ]
    ranking: Annotated[list[Ranked], Field(description="All classes that have examples, the most probable first.")]
    set: Annotated[
        list[str],
        Field(description="The classes that cannot be ruled out; may be empty, or several.", examples=[["circle"]]),
    ]


class Predictions(BaseModel):
    """One for each image, in the order they were sent."""

    predictions: list[Prediction]


class Point(BaseModel):
    """Where an example lies on the map."""

    example: Annotated[str, Field(examples=[_EXAMPLE])]
    label: Annotated[str, Field(examples=["circle"])]
    x: Annotated[float, Field(examples=[-0.5])]
    y: Annotated[float, Field(examples=[0.25])]


class Place(BaseModel):
    """Where an image lies on the map."""

    x: Annotated[float, Field(examples=[-0.5])]
    y: Annotated[float, Field(examples=[0.25])]


class Map(BaseModel):
    """The support set in the plane of its embedding's two principal directions, scaled into [-1, 1]."""

    points: list[Point]


class MapWithQueries(Map):
    """The same, and the images that were sent in the same plane."""

    queries: list[Place]


class Most(BaseModel):
    """The limits that a client can meet."""

    body_bytes: Annotated[int, Field(description="Of one request.", examples=[5_000_000])]
    files: Annotated[int, Field(description="Images of one request.", examples=[64])]
    pixels: Annotated[int, Field(description="Of one image.", examples=[4_000_000])]
    tasks: Annotated[int, Field(description="On this server.", examples=[100])]
    classes: Annotated[int, Field(description="Of one task.", examples=[200])]
    examples_per_class: Annotated[int, Field(examples=[50])]
    examples_per_task: Annotated[int, Field(examples=[2000])]


class Health(BaseModel):
    """Whether the server answers, and with what."""

    status: Annotated[str, Field(examples=["ok"])]
    version: Annotated[str, Field(examples=["0.1.0"])]
    learner: Annotated[str, Field(examples=["characters"])]
    tasks: Annotated[int, Field(examples=[3])]
    limits: Most


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The refusals of a call beside those that any call may meet, for its ``responses``."""
    return {status: {"model": Error, "description": _MEANING[status]} for status in sorted(statuses)}


_MEANING = {
    401: "The token is missing or wrong.",
    403: "Another host name, or a change that another site's page asks for.",
    404: "No such task, class or example.",
    408: "The request took too long to arrive.",
    409: "Not in the state that the task or the server is in.",
    413: "The body or an image is too large.",
    415: "Not an image of an accepted format, by its content.",
    422: "A value that cannot be taken, or a damaged image.",
    429: "Too many requests at once.",
    503: "The state's file is gone or was replaced: nothing can be kept until the server is started anew.",
    507: "The state could not be read or written: locked by another program, full disk, damaged.",
}
